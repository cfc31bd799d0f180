/* The command line of the simulator. */
#ifndef TOWLINE_POSIX_OPTIONS_H
#define TOWLINE_POSIX_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define TL_LAN_NAME_OPTIONS 2u

typedef struct {
    const char *data;
    struct sockaddr_in listen, provisioning; /* port 0 of `provisioning`: there is no such way in */
    const char *lan_name[TL_LAN_NAME_OPTIONS]; /* NULL: not given */
    const char *gateway, *gateway_ca_file, *token_file, *name, *hardware_id, *pin; /* NULL: not given */
    const char *firmware_key, *spare_key; /* "": none */
    uint32_t trial_ms[2]; /* least time, and patience, of an image on trial */
    bool asks_enrolled; /* nothing but whether the device in `data` is enrolled */
    uint32_t streams;
    uint32_t time_after_s;
    uint32_t cut_at; /* write at which the power goes; 0: never */
    int socket_buffer; /* bytes; 0: the system's */
} tl_options;

/* False: the program ends with `*code`; what to say was said. */
bool tl_options_read(tl_options *, int argc, char **argv, int *code);

#endif
