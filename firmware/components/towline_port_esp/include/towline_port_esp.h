/* The port header (towline_port.h) on ESP-IDF 5.5: one file a group.
 *
 * Who runs where: the core has the main task to itself. What waits for a network does it in a task of its own and
 * tells the core through the one queue.
 */
#ifndef TOWLINE_PORT_ESP_H
#define TOWLINE_PORT_ESP_H

#include "towline_port.h"

/* Starts what the groups stand on: flash, event loop, network interfaces. Called once, from the main task; what
 * cannot be had ends the program, which starts anew. */
const tl_port *tl_esp_port(void);

/* The device has begun: what it did not ask for is given back. */
void tl_esp_begun(void);

/* The next event, for the main task alone. Waits for `ms` at most, UINT32_MAX: for ever. */
tl_event tl_esp_wait(uint32_t ms);

#endif
