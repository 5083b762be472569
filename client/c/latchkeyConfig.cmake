# find_package(latchkey) gives latchkey::shared and latchkey::static.
include(${CMAKE_CURRENT_LIST_DIR}/latchkeyTargets.cmake)
