#include <stdlib.h>
#include <string.h>

#include "parts.h"

#include "esp_system.h"
#include "freertos/queue.h"

static QueueHandle_t queue;
static bool restart_wanted; /* set and read by the core's task alone */

void tl_esp_queue_begin(void)
{
    queue = xQueueCreate(TL_QUEUE_ENTRIES, sizeof(tl_event));
    configASSERT(queue != NULL);
}

bool tl_esp_post(const tl_event *event)
{
    return xQueueSend(queue, event, pdMS_TO_TICKS(TL_QUEUE_PATIENCE_MS)) == pdTRUE;
}

void tl_esp_post_last(const tl_event *event)
{
    xQueueSend(queue, event, portMAX_DELAY);
}

void tl_esp_restart_soon(void)
{
    restart_wanted = true;
}

/* At least one tick: a wait of none would keep the idle task, and with it the watchdog, from its turn. */
static TickType_t ticks(uint32_t ms)
{
    const TickType_t wanted = pdMS_TO_TICKS(ms);
    return ms == UINT32_MAX ? portMAX_DELAY : ms > 0 && wanted == 0 ? 1 : wanted;
}

tl_event tl_esp_wait(uint32_t ms)
{
    tl_event event = {.kind = TL_EVENT_NONE};
    if (restart_wanted) {
        esp_restart();
    }
    xQueueReceive(queue, &event, ticks(ms));
    return event;
}

char *tl_esp_text(tl_span text)
{
    char *copy = malloc(text.n + 1);
    if (copy != NULL) {
        if (text.n > 0) {
            memcpy(copy, text.at, text.n);
        }
        copy[text.n] = '\0';
    }
    return copy;
}
