/* What the files of the ESP port share. */
#ifndef TOWLINE_ESP_PARTS_H
#define TOWLINE_ESP_PARTS_H

#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "sdkconfig.h"

#include "towline_port_esp.h"

/* Bytes of stack: a TLS handshake needs about 5 KiB beside its buffers; sending on a live connection less. */
enum { TL_ESP_STACK_TLS = 7168, TL_ESP_STACK_SENDING = 5120 };
enum { TL_ESP_PRIORITY = 5 }; /* of all network tasks: above the core's, which they feed */

void tl_esp_queue_begin(void);
/* False: the core took nothing for TL_QUEUE_PATIENCE_MS; nothing was posted. Never from the core's task. */
bool tl_esp_post(const tl_event *event);
/* The last word of a connection: waits until there is room. */
void tl_esp_post_last(const tl_event *event);

/* The event loop's next turn starts the chip anew. */
void tl_esp_restart_soon(void);

/* A copy with a NUL behind it, from the heap; NULL: no memory. */
char *tl_esp_text(tl_span text);

/* Asks for the time as soon as there is a network. */
void tl_esp_clock_begin(void);

const tl_port_sys *tl_esp_sys(void);
const tl_port_link *tl_esp_link(void);
const tl_port_mqtt *tl_esp_mqtt(void);
const tl_port_fetch *tl_esp_fetch(void);
const tl_port_web *tl_esp_web(void);
const tl_port_kv *tl_esp_kv(void);
const tl_port_flash *tl_esp_flash(void);
const tl_port_ota *tl_esp_ota(void);
const tl_port_network *tl_esp_network(void);
const tl_port_provisioning *tl_esp_provisioning(void);
/* Gives the radio's memory back where provisioning does not run. */
void tl_esp_provisioning_unused(void);

#endif
