/* NOR flash as a file: bits only fall until their sector is erased, and a power cut leaves a part of either done.
 *
 * It outlives the process, killed or not. It does not outlive the host's power: nothing is synced, as a telemetry
 * message each second would wear the host's disk for a simulator.
 */
#ifndef TOWLINE_FLASH_FILE_H
#define TOWLINE_FLASH_FILE_H

#include "towline_port.h"

typedef struct {
    tl_port_flash port;
    int file;
} tl_flash_file;

/* The partition `name` of this folder; made, and erased, where there is none of this size. NULL, or why not. */
const char *tl_flash_file_open(tl_flash_file *, int folder, const char *name, uint16_t sectors);
void tl_flash_file_close(tl_flash_file *);

#endif
