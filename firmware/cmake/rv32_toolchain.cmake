# An ESP32-C3's instruction set on qemu's "virt" board, by Debian's gcc-riscv64-unknown-elf and picolibc.
# Semihosting gives printf and the exit code; a program gets no arguments.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR riscv32)
set(CMAKE_C_COMPILER riscv64-unknown-elf-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_C_FLAGS_INIT "-march=rv32imc -mabi=ilp32 --specs=picolibc.specs")
set(CMAKE_EXE_LINKER_FLAGS_INIT "--oslib=semihost --crt0=hosted -Wl,--gc-sections \
-Wl,--defsym=__flash=0x80000000,--defsym=__flash_size=0x800000 \
-Wl,--defsym=__ram=0x80800000,--defsym=__ram_size=0x800000")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-system-riscv32 -M virt -cpu rv32 -m 64M -bios none -nographic -monitor none
    -serial none -semihosting-config enable=on,target=native -kernel CACHE STRING "how a program is run")
