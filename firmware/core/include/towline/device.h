/* The whole firmware above the port header: one device, fed with events, run when it wants to be.
 *
 * Its owner is the one task of the core:
 *
 *     tl_device *device = tl_device_init(memory, tl_device_size(&config), &config, &port);
 *     for (;;) {
 *         const uint32_t ms = tl_device_run(device);
 *         const tl_event event = wait(ms);
 *         tl_device_event(device, &event);
 *     }
 */
#ifndef TOWLINE_DEVICE_H
#define TOWLINE_DEVICE_H

#include "towline/image.h"
#include "towline_port.h"

#define TL_DEVICE_VERSION_MAX 24u
#define TL_DEVICE_STREAMS_MAX 16u

/* What is the same for every start of this firmware on this board. All of it stays where it is. */
typedef struct {
    const char *version;
    const char *hardware; /* for the page: what it runs on */
    const char *type;     /* what the platform knows it as */
    tl_span hardware_id;  /* of this one device, the same after a factory reset */
    uint32_t max_streams; /* ≤ TL_DEVICE_STREAMS_MAX: 4, or 16 with external memory */
    uint16_t outbox_sectors; /* of the flash partition, from its begin */
    const tl_firmware *firmware; /* NULL: it takes no images */
    uint32_t steady_ms, patience_ms; /* on trial: TL_OTA_STEADY_MS, TL_OTA_PATIENCE_MS */
} tl_config;

typedef struct tl_device tl_device;

size_t tl_device_size(const tl_config *);
/* `memory`: aligned for any type, of that size. NULL: what it keeps cannot be used; the port's log says why. */
tl_device *tl_device_init(void *memory, const tl_config *, const tl_port *);
/* TL_EVENT_NONE and TL_EVENT_STOP as well: neither does anything. */
void tl_device_event(tl_device *, const tl_event *);
/* Does what is due; for how many ms it wants no call without an event. UINT32_MAX: none. */
uint32_t tl_device_run(tl_device *);
/* The last words before the program ends: goodbye to the server and the broker. */
void tl_device_stop(tl_device *);
/* Whether nothing of `stop` is under way any more. */
bool tl_device_stopped(const tl_device *);

/* A sample of something that is measured: `value` / 10^decimals. The name stays where it is. False: too many of them. */
bool tl_device_measured(tl_device *, const char *name, int32_t value, uint8_t decimals);
/* Goes once into the next health report: `value` is JSON, a number, a text of at most 256 characters, true or false.
 * A name that is there already gets the new value. False: it is not that, or there is no room (TL_SENSORS_MAX). */
bool tl_device_sensor(tl_device *, const char *name, tl_span value);
/* Something happened: `type` names it, `payload` is a JSON object. Kept until the log has it. False: it is
 * not kept: there is no room, or no platform has greeted this device yet, so that nothing of it has a number. */
bool tl_device_happened(tl_device *, const char *type, tl_span payload);

#endif
