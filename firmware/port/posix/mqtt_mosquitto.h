/* The port's MQTT group by libmosquitto: a thread for each connection, since its connecting blocks. One that is left
 * in the middle of that ends by itself, later, and tells nothing. */
#ifndef TOWLINE_POSIX_MQTT_MOSQUITTO_H
#define TOWLINE_POSIX_MQTT_MOSQUITTO_H

#include "queue.h"

#define TL_MQTT_MESSAGE_MAX 9216u /* a configuration of 8 KiB with what is around it; what is longer is dropped */
#define TL_MQTT_TOPIC_MAX 324u
#define TL_MQTT_GOODBYE_MS 1000u

typedef struct tl_mqtt_connection tl_mqtt_connection;

typedef struct {
    tl_port_mqtt port;
    tl_queue *queue;
    /* Under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    tl_mqtt_connection *current; /* NULL: none, or what is left is not told of any more */
    unsigned threads;
    bool lent; /* topic and message below */
    size_t topic_n, message_n;
    uint8_t topic[TL_MQTT_TOPIC_MAX];
    uint8_t message[TL_MQTT_MESSAGE_MAX];
} tl_mqtt;

void tl_mqtt_init(tl_mqtt *, tl_queue *);
/* The queue was closed: ends the connection, if there is one. */
void tl_mqtt_end(tl_mqtt *);

#endif
