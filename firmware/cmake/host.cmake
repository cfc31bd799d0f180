# TOWLINE_KIND says what is built:
#   sim       the simulator as a user runs it
#   asan      units and simulator with the address and undefined-behaviour sanitizers
#   tsan      units and simulator with the thread sanitizer
#   coverage  units with gcov
#   fuzz      the fuzz targets (clang)
#   stubs     the ESP port against declarations of ESP-IDF: it compiles, nothing of it runs
#   rv32      the core and its units for rv32imc, run under qemu (cmake/rv32_toolchain.cmake)
include(cmake/flags.cmake)
enable_testing()
find_package(Python3 REQUIRED COMPONENTS Interpreter)

if(TOWLINE_KIND STREQUAL "stubs")
    add_subdirectory(core EXCLUDE_FROM_ALL)
    add_subdirectory(idf_stubs)
    return()
endif()
add_subdirectory(core)
if(NOT TOWLINE_KIND STREQUAL "rv32")
    add_subdirectory(port)
endif()
if(TOWLINE_KIND STREQUAL "fuzz")
    add_subdirectory(tests/fuzz)
elseif(NOT TOWLINE_KIND STREQUAL "sim")
    add_subdirectory(tests)
endif()
