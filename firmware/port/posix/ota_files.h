/* Two images as files, and what a chip's boot loader does with them.
 *
 * The program that was started is the boot loader, and, where no other image is to boot, the image too: what it came
 * with is slot 0. An update's bytes are a program of the same kind; they are executed in the same process, with the
 * same arguments, so that whoever started the device waits for whatever runs. A restart goes through the boot loader.
 * As on a chip an image that was not marked valid boots once: the next start is the former one's.
 */
#ifndef TOWLINE_OTA_FILES_H
#define TOWLINE_OTA_FILES_H

#include "towline_port.h"

#define TL_OTA_TARGET_SIMULATOR 0xF001u /* beyond the chips of ESP-IDF */
#define TL_OTA_LARGEST (16u << 20)      /* a simulator with sanitizers and debug information has 8 MiB */

typedef struct {
    tl_port_ota port;
    void (*restart)(void *owner);
    void *owner;
    int folder;
    int file; /* of the image that is written; -1: none */
    uint32_t at;
    bool trial;
} tl_ota_files;

/* What a chip does before main: boots the slot that is to boot. It returns in the process whose image runs; where that
 * is another program, this one's place is taken. NULL, or why the device cannot boot (a literal). */
const char *tl_ota_files_boot(tl_ota_files *, int folder, char **argv);
/* `restart`: asked for a rollback. */
void tl_ota_files_init(tl_ota_files *, void (*restart)(void *owner), void *owner);
/* The device's end and new start, by the boot loader; false: it cannot be executed. */
bool tl_ota_files_restart(char **argv);

#endif
