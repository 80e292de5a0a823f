# Versions of one major number are compatible, of 0.x those of one minor number.

if(EXISTS "${CMAKE_CURRENT_LIST_DIR}/../../../vqcc/__init__.py")
  set(_vqcc_source "${CMAKE_CURRENT_LIST_DIR}/../../../vqcc/__init__.py") # of a checkout
else()
  set(_vqcc_source "${CMAKE_CURRENT_LIST_DIR}/../../../../__init__.py") # beside _data
endif()
file(STRINGS "${_vqcc_source}" _vqcc_line REGEX "^__version__ = ")
string(REGEX REPLACE "^__version__ = \"(.*)\"$" "\\1" PACKAGE_VERSION "${_vqcc_line}")

set(_vqcc_series "^[1-9][0-9]*")
if(PACKAGE_VERSION MATCHES "^0\\.")
  set(_vqcc_series "^0\\.[0-9]+")
endif()
string(REGEX MATCH "${_vqcc_series}" _vqcc_own_series "${PACKAGE_VERSION}")
string(REGEX MATCH "${_vqcc_series}" _vqcc_asked_series "${PACKAGE_FIND_VERSION}")
if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_EXACT TRUE)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
elseif(PACKAGE_FIND_VERSION VERSION_LESS PACKAGE_VERSION AND _vqcc_own_series STREQUAL _vqcc_asked_series)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
else()
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
endif()
