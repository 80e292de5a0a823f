# What find_package(vqcc) finds in an environment that vqcc is installed in, if the version file beside it has no complaint;
# it goes on to the package. See docs/cmake.md.

include("${CMAKE_CURRENT_LIST_DIR}/vqcc-package.cmake")
set(_vqcc_environment "${_vqcc_prefix}/bin")
include("${_vqcc_package}/vqcc-config.cmake")
