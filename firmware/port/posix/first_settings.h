/* What a phone, or a factory, gives a device: from the command line, while the device is not enrolled. */
#ifndef TOWLINE_POSIX_FIRST_SETTINGS_H
#define TOWLINE_POSIX_FIRST_SETTINGS_H

#include "options.h"
#include "towline_port.h"

#define TL_HARDWARE_ID_MAX 64u

bool tl_is_enrolled(const tl_port_kv *);
/* Writes what is given into the store, and finds or makes the hardware id, which a factory reset leaves. False: what
 * is wrong was said. */
bool tl_first_settings(const tl_options *, const tl_port_kv *, int folder, char hardware_id[TL_HARDWARE_ID_MAX + 1]);

#endif
