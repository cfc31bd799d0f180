# What the POSIX port is made of, one file a line. The simulator's main() stands apart, so that units can link the rest.
set(TOWLINE_PORT_SOURCES
    posix/disk.c
    posix/fetch_lws.c
    posix/first_settings.c
    posix/flash_file.c
    posix/kv_file.c
    posix/link_lws.c
    posix/lws_context.c
    posix/options.c
    posix/ota_files.c
    posix/queue.c
    posix/sys.c
    posix/web_answer.c
    posix/web_mhd.c
)
set(TOWLINE_SIMULATOR_SOURCES
)
