# The version of the package that is installed in this environment; one whose vqcc does not run is passed over.

include("${CMAKE_CURRENT_LIST_DIR}/vqcc-package.cmake")
if(_vqcc_problem)
  set(PACKAGE_VERSION "unknown, ${_vqcc_problem}") # which is what CMake shows
  set(PACKAGE_VERSION_UNSUITABLE TRUE)
else()
  include("${_vqcc_package}/vqcc-config-version.cmake")
endif()
