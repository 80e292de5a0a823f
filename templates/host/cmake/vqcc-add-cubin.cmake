# vqcc_add_cubin(): hand-written kernels as a library target. docs/cubin.md has its parameters.

# vqcc_add_cubin(<target> SOURCE <kernels.cu> GPU <gpu>... [EMBED object|array] [OUT <directory>] [CACHE_DIR <directory>])
function(vqcc_add_cubin target)
  set(_vqcc_function vqcc_add_cubin)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "SOURCE;EMBED;OUT;CACHE_DIR" "GPU")
  if(NOT arg_EMBED)
    set(arg_EMBED object)
  endif()
  _vqcc_check_cubin("${target}" "${arg_SOURCE}" "${arg_GPU}" "${arg_EMBED}" "${arg_UNPARSED_ARGUMENTS}"
                    "${arg_KEYWORDS_MISSING_VALUES}")

  get_filename_component(source "${arg_SOURCE}" ABSOLUTE)
  get_filename_component(name "${source}" NAME_WLE)
  if(NOT arg_OUT)
    set(arg_OUT "vqcc/${target}")
  endif()
  get_filename_component(out "${arg_OUT}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_BINARY_DIR}")
  set(directory "${out}/${name}")
  _vqcc_claim("${target}" "${directory}")
  set(options -o "${out}" --emit "${arg_EMBED}")
  foreach(gpu IN LISTS arg_GPU)
    list(APPEND options --gpu "${gpu}")
  endforeach()
  if(arg_CACHE_DIR)
    get_filename_component(cache "${arg_CACHE_DIR}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_BINARY_DIR}")
    list(APPEND options --cache-dir "${cache}")
  endif()
  set(base "${directory}/${name}.embedded")
  set(code "${base}.c")
  if(arg_EMBED STREQUAL "object")
    set(code "${base}.o")
    _vqcc_machine(machine)
    list(APPEND options ${machine})
  endif()

  # A stamp for the output, as of vqcc_add_library: files whose bytes stay keep their times.
  set(stamp "${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/vqcc/${target}")
  add_custom_command(
    OUTPUT "${stamp}.stamp"
    BYPRODUCTS "${base}.h" "${code}" "${directory}/manifest.json"
    COMMAND ${VQCC_EXECUTABLE} cubin "${source}" ${options} --depfile "${stamp}.d" --depfile-target "${stamp}.stamp"
    COMMAND "${CMAKE_COMMAND}" -E touch "${stamp}.stamp"
    DEPENDS "${source}"
    DEPFILE "${stamp}.d"
    COMMENT "Compiling ${name} with vqcc"
    VERBATIM)
  file(MAKE_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/vqcc")
  add_library(${target} INTERFACE "${stamp}.stamp")
  get_filename_component(include "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../include" ABSOLUTE)
  target_include_directories(
    ${target} INTERFACE "$<BUILD_INTERFACE:${directory}>" "$<BUILD_INTERFACE:${include}>")
  _vqcc_embed("${target}" "${arg_EMBED}" "${code}")
endfunction()

function(_vqcc_check_cubin target source gpus embed unknown missing)
  if(unknown)
    list(GET unknown 0 word)
    _vqcc_fail("${target}" "unknown argument '${word}': use SOURCE, GPU, EMBED, OUT and CACHE_DIR")
  elseif(missing)
    list(GET missing 0 word)
    _vqcc_fail("${target}" "${word} has no value")
  elseif(NOT source)
    _vqcc_fail("${target}" "SOURCE is missing: name the CUDA file of the kernels")
  elseif(NOT gpus)
    _vqcc_fail("${target}" "GPU is missing: name the GPUs that the kernels are for")
  elseif(NOT embed MATCHES "^(object|array)$")
    _vqcc_fail("${target}" "EMBED cannot be '${embed}': use object or array")
  elseif(TARGET "${target}")
    _vqcc_fail("${target}" "there is a target of that name already")
  endif()
endfunction()
