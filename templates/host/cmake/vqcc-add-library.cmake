# vqcc_add_library(): a spec as a library target. docs/cmake.md has its parameters and properties.

# vqcc_add_library(<target> SPEC <spec.yaml> [GPU <gpu>...] [LEVEL <level>] [EMBED object|array] [OUT <directory>]
#                  [CACHE_DIR <directory>])
function(vqcc_add_library target)
  set(_vqcc_function vqcc_add_library)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "SPEC;LEVEL;EMBED;OUT;CACHE_DIR" "GPU")
  _vqcc_check_call("${target}" "${arg_SPEC}" "${arg_EMBED}" "${arg_UNPARSED_ARGUMENTS}"
                   "${arg_KEYWORDS_MISSING_VALUES}")

  get_filename_component(spec "${arg_SPEC}" ABSOLUTE)
  if(NOT arg_OUT)
    set(arg_OUT "vqcc/${target}")
  endif()
  get_filename_component(out "${arg_OUT}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_BINARY_DIR}")
  # What names the outputs, for `vqcc outputs` as for `vqcc compile`.
  set(options -o "${out}")
  foreach(gpu IN LISTS arg_GPU)
    list(APPEND options --gpu "${gpu}")
  endforeach()
  if(arg_LEVEL)
    list(APPEND options --level "${arg_LEVEL}")
  endif()
  if(arg_EMBED)
    list(APPEND options --emit "cu,cubin,header,plan,${arg_EMBED}")
  endif()
  _vqcc_outputs(outputs "${target}" "${spec}" ${options})
  string(JSON directory GET "${outputs}" directory)
  _vqcc_claim("${target}" "${directory}")

  if(arg_CACHE_DIR)
    get_filename_component(cache "${arg_CACHE_DIR}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_BINARY_DIR}")
    list(APPEND options --cache-dir "${cache}")
  endif()
  if(arg_EMBED STREQUAL "object")
    _vqcc_machine(machine)
    list(APPEND options ${machine})
  endif()
  _vqcc_add_command(stamp "${target}" "${spec}" "${outputs}" ${options})

  # With a source, the library is a target to build: by its name, with all, and before whatever links it.
  add_library(${target} INTERFACE "${stamp}")
  get_filename_component(include "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../include" ABSOLUTE)
  target_include_directories(
    ${target} INTERFACE "$<BUILD_INTERFACE:${directory}>" "$<BUILD_INTERFACE:${include}>")
  _vqcc_set_properties("${target}" "${outputs}")
  if(arg_EMBED)
    _vqcc_list(files "${outputs}" embedded)
    _vqcc_embed("${target}" "${arg_EMBED}" ${files})
  endif()
endfunction()

function(_vqcc_fail target text)
  message(FATAL_ERROR "${_vqcc_function}(${target}): ${text}")
endfunction()

function(_vqcc_check_call target spec embed unknown missing)
  if(unknown)
    list(GET unknown 0 word)
    _vqcc_fail("${target}" "unknown argument '${word}': use SPEC, GPU, LEVEL, EMBED, OUT and CACHE_DIR")
  elseif(missing)
    list(GET missing 0 word)
    _vqcc_fail("${target}" "${word} has no value")
  elseif(NOT spec)
    _vqcc_fail("${target}" "SPEC is missing: name the YAML file of the library")
  elseif(embed AND NOT embed MATCHES "^(object|array)$")
    _vqcc_fail("${target}" "EMBED cannot be '${embed}': use object or array")
  elseif(TARGET "${target}")
    _vqcc_fail("${target}" "there is a target of that name already")
  endif()
endfunction()

# A bundle's directory is one library's alone: two would replace each other's files in every build.
function(_vqcc_claim target directory)
  get_property(owner GLOBAL PROPERTY "VQCC_OWNER_OF_${directory}")
  if(owner)
    _vqcc_fail("${target}" "${directory} is that of ${owner}: give one of them another OUT")
  endif()
  set_property(GLOBAL PROPERTY "VQCC_OWNER_OF_${directory}" "${target}")
endfunction()

# Set `result` to what `vqcc outputs` says of the spec, as JSON. That takes a third of a second, so it is asked again only
# if spec, options or package are others. Whatever is wrong with the spec ends the configuration.
function(_vqcc_outputs result target spec)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${spec}")
  set(content "")
  if(EXISTS "${spec}" AND NOT IS_DIRECTORY "${spec}")
    file(SHA256 "${spec}" content)
  endif()
  file(TIMESTAMP "${CMAKE_CURRENT_FUNCTION_LIST_FILE}" package)
  string(SHA256 key "${content} ${package} ${spec} ${ARGN} ${VQCC_EXECUTABLE}")
  set(kept "${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/vqcc/${target}.json")
  set(outputs "{}")
  if(EXISTS "${kept}")
    file(READ "${kept}" outputs)
  endif()
  string(JSON kept_key ERROR_VARIABLE none GET "${outputs}" key)
  if(NOT kept_key STREQUAL key)
    set(command ${VQCC_EXECUTABLE} outputs "${spec}" ${ARGN})
    execute_process(COMMAND ${command} --json RESULT_VARIABLE failed OUTPUT_VARIABLE outputs ERROR_VARIABLE text)
    if(failed)
      execute_process(COMMAND ${command} OUTPUT_QUIET ERROR_VARIABLE text) # what is wrong, in words
      string(STRIP "${text}" text)
      if(text MATCHES "^Usage: .*Error: Invalid value for '--([a-z]+)': (.*)$") # an argument of this call, by its name
        string(TOUPPER "${CMAKE_MATCH_1}" keyword)
        _vqcc_fail("${target}" "${keyword}: ${CMAKE_MATCH_2}")
      endif()
      string(REPLACE "\n" "\n  " text "${text}") # CMake leaves lines alone that begin with blanks
      _vqcc_fail("${target}" "vqcc refuses it\n  ${text}")
    endif()
    string(JSON outputs SET "${outputs}" key "\"${key}\"")
    file(WRITE "${kept}" "${outputs}")
  endif()
  set(${result} "${outputs}" PARENT_SCOPE)
endfunction()

# The command that makes the bundle. Its output is a stamp, which `stamp` is set to: vqcc leaves a bundle alone whose
# bytes stay, so that what includes its header is not compiled again, and a header older than the spec would have make run
# the command in every build.
function(_vqcc_add_command stamp target spec outputs)
  set(base "${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/vqcc/${target}")
  string(JSON name GET "${outputs}" name)
  _vqcc_list(files "${outputs}" files)
  # A lock file that appears, or goes, has CMake run again. A glob of one name, whatever its characters.
  string(JSON lock GET "${outputs}" lock)
  string(REGEX REPLACE "([][*?])" "[\\1]" pattern "${lock}")
  file(GLOB lock CONFIGURE_DEPENDS "${pattern}")
  add_custom_command(
    OUTPUT "${base}.stamp"
    BYPRODUCTS ${files}
    COMMAND ${VQCC_EXECUTABLE} compile "${spec}" ${ARGN} --depfile "${base}.d" --depfile-target "${base}.stamp"
    COMMAND "${CMAKE_COMMAND}" -E touch "${base}.stamp"
    DEPENDS "${spec}" ${lock}
    DEPFILE "${base}.d"
    COMMENT "Compiling ${name} with vqcc"
    VERBATIM)
  set(${stamp} "${base}.stamp" PARENT_SCOPE)
endfunction()

function(_vqcc_set_properties target outputs)
  foreach(property name identifier header directory)
    string(JSON ${property} GET "${outputs}" ${property})
  endforeach()
  _vqcc_list(cubins "${outputs}" cubins)
  set_target_properties(
    ${target}
    PROPERTIES VQCC_NAME "${name}" VQCC_IDENTIFIER "${identifier}" VQCC_HEADER "${header}"
               VQCC_CUBIN_DIR "${directory}" VQCC_CUBINS "${cubins}")
endfunction()

# GPU code, the object or C files after `kind`, becomes part of what links the library.
function(_vqcc_embed target kind)
  set(files ${ARGN})
  if(kind STREQUAL "object")
    foreach(file IN LISTS files)
      target_link_libraries(${target} INTERFACE "$<BUILD_INTERFACE:${file}>")
    endforeach()
  else()
    add_library(${target}_embedded STATIC ${files})
    set_target_properties(${target}_embedded PROPERTIES POSITION_INDEPENDENT_CODE ON)
    get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
    if(NOT "C" IN_LIST languages) # it is C++ as well
      set_source_files_properties(${files} PROPERTIES LANGUAGE CXX)
      target_compile_features(${target}_embedded PRIVATE cxx_std_17)
    endif()
    add_dependencies(${target}_embedded ${target})
    target_link_libraries(${target} INTERFACE "$<BUILD_INTERFACE:${target}_embedded>")
  endif()
endfunction()

# The option that says which hosts the program is for; none for hosts that vqcc then refuses by itself.
function(_vqcc_machine result)
  string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" processor)
  set(option "")
  if(processor MATCHES "^(x86_64|amd64)$")
    set(option --machine x86_64)
  elseif(processor MATCHES "^(aarch64|arm64)$")
    set(option --machine aarch64)
  endif()
  set(${result} ${option} PARENT_SCOPE)
endfunction()

# Set `result` to the values of a JSON array, or of an object.
function(_vqcc_list result json key)
  string(JSON count LENGTH "${json}" ${key})
  string(JSON type TYPE "${json}" ${key})
  set(values "")
  set(index 0)
  while(index LESS count)
    set(member ${index})
    if(type STREQUAL "OBJECT")
      string(JSON member MEMBER "${json}" ${key} ${index})
    endif()
    string(JSON value GET "${json}" ${key} ${member})
    list(APPEND values "${value}")
    math(EXPR index "${index} + 1")
  endwhile()
  set(${result} "${values}" PARENT_SCOPE)
endfunction()
