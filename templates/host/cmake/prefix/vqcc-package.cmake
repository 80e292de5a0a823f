# The environment that this lies in, PREFIX/share/cmake/vqcc, and in _vqcc_package the folder of the package that is
# installed in it; else _vqcc_problem.

get_filename_component(_vqcc_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(_vqcc_problem "")
set(_vqcc_package "${_vqcc_prefix}/vqcc/_data/templates/host/cmake") # of `pip install --target`
if(NOT EXISTS "${_vqcc_package}/vqcc-config.cmake")
  # The environment's own vqcc knows, also where a checkout is installed editable, or for several versions of Python.
  execute_process(
    COMMAND "${_vqcc_prefix}/bin/vqcc" cmake-dir
    RESULT_VARIABLE _vqcc_result OUTPUT_VARIABLE _vqcc_package ERROR_VARIABLE _vqcc_error OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT _vqcc_result EQUAL 0 OR NOT EXISTS "${_vqcc_package}/vqcc-config.cmake")
    set(_vqcc_problem "`${_vqcc_prefix}/bin/vqcc cmake-dir` fails (${_vqcc_result}):\n${_vqcc_error}")
  endif()
endif()
