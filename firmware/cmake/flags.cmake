# How all C of this tree is compiled: one target that carries it.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)

set(TOWLINE_WARNINGS -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Wvla -Werror)

add_library(towline_flags INTERFACE)
target_include_directories(towline_flags INTERFACE ${PROJECT_SOURCE_DIR}/port/include)
if(TOWLINE_KIND STREQUAL "sim")
    # As distributions harden: the simulator listens on real ports.
    target_compile_options(towline_flags INTERFACE ${TOWLINE_WARNINGS} -O2 -g -fstack-protector-strong -D_FORTIFY_SOURCE=2)
elseif(TOWLINE_KIND STREQUAL "asan")
    set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all)
    # What a sanitizer adds makes gcc see conversions that are none; the other kinds have it look.
    target_compile_options(towline_flags INTERFACE ${TOWLINE_WARNINGS} -Wno-conversion -O1 -g -fno-omit-frame-pointer
        ${sanitizers})
    target_link_options(towline_flags INTERFACE ${sanitizers})
elseif(TOWLINE_KIND STREQUAL "tsan")
    target_compile_options(towline_flags INTERFACE ${TOWLINE_WARNINGS} -O1 -g -fsanitize=thread)
    target_link_options(towline_flags INTERFACE -fsanitize=thread)
elseif(TOWLINE_KIND STREQUAL "coverage")
    target_compile_options(towline_flags INTERFACE ${TOWLINE_WARNINGS} -O0 -g --coverage -fprofile-update=atomic)
    target_link_options(towline_flags INTERFACE --coverage)
elseif(TOWLINE_KIND STREQUAL "fuzz")
    # Its -Wconversion asks for more than gcc's; the other kinds have seen the same sources.
    target_compile_options(towline_flags INTERFACE -Wall -Wextra -Werror -O1 -g -fsanitize=fuzzer-no-link,address,undefined
        -fno-sanitize-recover=all)
    target_link_options(towline_flags INTERFACE -fsanitize=fuzzer,address,undefined)
elseif(TOWLINE_KIND STREQUAL "stubs")
    target_compile_options(towline_flags INTERFACE ${TOWLINE_WARNINGS} -Os)
elseif(TOWLINE_KIND STREQUAL "rv32")
    # As sdkconfig.defaults.esp32c3 makes IDF compile; a section a function: what nobody calls is not linked.
    target_compile_options(towline_flags INTERFACE ${TOWLINE_WARNINGS} -Os -msave-restore -ffunction-sections
        -fdata-sections -fstack-usage -fcallgraph-info=su -DTOWLINE_RV32)
else()
    message(FATAL_ERROR "TOWLINE_KIND=${TOWLINE_KIND}: see cmake/host.cmake")
endif()
