# The CMake package of vqcc: find_package(vqcc REQUIRED), by what lies in prefix/ if it is installed, or with
# -Dvqcc_DIR=$(vqcc cmake-dir). See docs/cmake.md.
#
# Sets VQCC_EXECUTABLE, the command that is run, and VQCC_INCLUDE_DIR, what `vqcc include-dir` prints; defines
# vqcc_add_library() and vqcc_add_cubin().

cmake_minimum_required(VERSION 3.20...4.0)

get_filename_component(VQCC_INCLUDE_DIR "${CMAKE_CURRENT_LIST_DIR}/../include" ABSOLUTE)

# What holds templates/: a checkout, or vqcc/_data in the site-packages of an installation.
get_filename_component(_vqcc_root "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(_vqcc_root MATCHES "/vqcc/_data$")
  # Of an environment, PREFIX/lib/pythonX.Y/site-packages; of `pip install --target`, any folder.
  set(_vqcc_beside "${_vqcc_root}/../../../../../bin" "${_vqcc_root}/../../bin")
else()
  set(_vqcc_beside "${_vqcc_root}/.venv/bin")
endif()
if(_vqcc_environment) # the one that the package was found in, prefix/vqcc-config.cmake
  set(_vqcc_beside "${_vqcc_environment}")
endif()
set(_vqcc_doc "The vqcc that vqcc_add_library() runs; several words, such as python3;-m;vqcc, are a command too")
find_program(VQCC_EXECUTABLE vqcc PATHS ${_vqcc_beside} DOC "${_vqcc_doc}" NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
find_program(VQCC_EXECUTABLE vqcc DOC "${_vqcc_doc}" NO_CMAKE_FIND_ROOT_PATH)

# Another installation's vqcc would be run with these functions, and headers of this one included.
set(_vqcc_problem "")
if(NOT VQCC_EXECUTABLE)
  set(_vqcc_problem "there is no vqcc beside this package or on the PATH")
else()
  execute_process(
    COMMAND ${VQCC_EXECUTABLE} cmake-dir
    RESULT_VARIABLE _vqcc_result OUTPUT_VARIABLE _vqcc_own ERROR_VARIABLE _vqcc_error OUTPUT_STRIP_TRAILING_WHITESPACE)
  get_filename_component(_vqcc_here "${CMAKE_CURRENT_LIST_DIR}" REALPATH)
  get_filename_component(_vqcc_there "${_vqcc_own}" REALPATH)
  string(REPLACE ";" " " _vqcc_command "${VQCC_EXECUTABLE}")
  if(NOT _vqcc_result EQUAL 0)
    set(_vqcc_problem "`${_vqcc_command} cmake-dir` fails (${_vqcc_result}):\n${_vqcc_error}")
  elseif(NOT _vqcc_here STREQUAL _vqcc_there)
    set(_vqcc_problem "${_vqcc_command} belongs to another package, ${_vqcc_own}")
  endif()
endif()
if(_vqcc_problem)
  set(vqcc_FOUND FALSE)
  set(vqcc_NOT_FOUND_MESSAGE
      "${_vqcc_problem}\nSay which vqcc to run, -DVQCC_EXECUTABLE=PATH, and name its package, -Dvqcc_DIR=$(PATH cmake-dir)")
  return()
endif()

include("${CMAKE_CURRENT_LIST_DIR}/vqcc-add-library.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/vqcc-add-cubin.cmake")
