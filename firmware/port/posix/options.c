#include "options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "towline/device.h"
#include "towline/ota.h"
#include "version.h"

#define BAD_USAGE 2 /* as shells and most programs have it */

static const char HELP[] =
    "usage: towline-device --data DIR [options]\n"
    "\n"
    "The firmware of a Towline device as a program of this machine. All that it keeps is in DIR.\n"
    "\n"
    "  --data DIR            where settings, identity and messages that wait are kept; made if missing\n"
    "  --listen ADDR:PORT    where the device's own page listens (127.0.0.1:8080);\n"
    "                        port 0 is any free one, 0.0.0.0 every address of this machine\n"
    "  --lan-name NAME       what else the page may be called in a browser; twice at most\n"
    "  --pin DIGITS          the page's PIN, eight digits; else one is made at the first start, and printed\n"
    "\n"
    "Until the device is enrolled:\n"
    "  --provisioning ADDR:PORT  where a phone's app may set it up (nowhere)\n"
    "  --gateway URL         https://host[:port]; http:// to this machine's loopback alone\n"
    "  --gateway-ca FILE     the CA of that gateway, PEM (the system's certificates)\n"
    "  --token-file FILE     holds a registration token\n"
    "  --name NAME           what the owner sees\n"
    "  --hardware-id ID      [a-z0-9_-]; else one is made at the first start\n"
    "\n"
    "Updates:\n"
    "  --firmware-key HEX    public half of the key that signs images, and of the spare one (none: no image is taken)\n"
    "  --spare-key HEX\n"
    "  --trial MS,MS         how long a new image runs before it is confirmed, and at most\n"
    "                        (60000,300000)\n"
    "\n"
    "To be like a chip:\n"
    "  --streams N           visitors' connections at once, 1 to 16 (4)\n"
    "  --socket-buffer N     bytes of the tunnel's socket in each direction (the system's; a chip has 5760)\n"
    "  --time-after S        seconds after the start until it knows the time (0)\n"
    "  --cut-power-at N      the power goes at the N-th write after the start; exit code 86\n"
    "\n"
    "  --enrolled            ends with 0 where the device in DIR is enrolled, else with 3\n"
    "  --version, --help\n"
    "\n"
    "SIGTERM ends it. Exit code: 0 after that, 1 when DIR or the address cannot be used, 2 for a wrong option.\n";

enum {
    DATA = 1, LISTEN, PROVISIONING, LAN_NAME, PIN, GATEWAY, GATEWAY_CA, TOKEN_FILE, NAME, HARDWARE_ID,
    STREAMS, BUFFER, TIME, FIRMWARE_KEY, SPARE_KEY, TRIAL, CUT, ENROLLED, HELP_, VERSION
};

static const struct option OPTIONS[] = {
    {"data", required_argument, NULL, DATA},
    {"listen", required_argument, NULL, LISTEN},
    {"provisioning", required_argument, NULL, PROVISIONING},
    {"lan-name", required_argument, NULL, LAN_NAME},
    {"pin", required_argument, NULL, PIN},
    {"gateway", required_argument, NULL, GATEWAY},
    {"gateway-ca", required_argument, NULL, GATEWAY_CA},
    {"token-file", required_argument, NULL, TOKEN_FILE},
    {"name", required_argument, NULL, NAME},
    {"hardware-id", required_argument, NULL, HARDWARE_ID},
    {"streams", required_argument, NULL, STREAMS},
    {"socket-buffer", required_argument, NULL, BUFFER},
    {"time-after", required_argument, NULL, TIME},
    {"firmware-key", required_argument, NULL, FIRMWARE_KEY},
    {"spare-key", required_argument, NULL, SPARE_KEY},
    {"trial", required_argument, NULL, TRIAL},
    {"cut-power-at", required_argument, NULL, CUT},
    {"enrolled", no_argument, NULL, ENROLLED},
    {"help", no_argument, NULL, HELP_},
    {"version", no_argument, NULL, VERSION},
    {NULL, 0, NULL, 0},
};

static bool wrong(const char *option, const char *value, const char *expected)
{
    fprintf(stderr, "towline-device: --%s %s: is not %s\n", option, value, expected);
    return false;
}

static bool number(const char *option, const char *text, unsigned long least, unsigned long most, unsigned long *value)
{
    char *end;
    *value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || *value < least || *value > most) {
        char expected[64];
        snprintf(expected, sizeof expected, "a number from %lu to %lu", least, most);
        return wrong(option, text, expected);
    }
    return true;
}

static bool address(const char *option, const char *text, struct sockaddr_in *to)
{
    const char *colon = strrchr(text, ':');
    char host[INET_ADDRSTRLEN];
    unsigned long port;
    const size_t n = colon != NULL ? (size_t)(colon - text) : sizeof host;
    if (n >= sizeof host) {
        return wrong(option, text, "ADDRESS:PORT");
    }
    memcpy(host, text, n);
    host[n] = '\0';
    *to = (struct sockaddr_in){.sin_family = AF_INET};
    if (inet_pton(AF_INET, host, &to->sin_addr) != 1) {
        return wrong(option, text, "an IPv4 address of this machine and a port, such as 127.0.0.1:8080");
    }
    if (!number(option, colon + 1, 0, UINT16_MAX, &port)) {
        return false;
    }
    to->sin_port = htons((uint16_t)port);
    return true;
}

static bool trial(tl_options *o, const char *text)
{
    char first[16];
    const char *comma = strchr(text, ',');
    const size_t n = comma != NULL ? (size_t)(comma - text) : sizeof first;
    unsigned long least, most;
    if (n >= sizeof first) {
        return wrong("trial", text, "MS,MS");
    }
    memcpy(first, text, n);
    first[n] = '\0';
    if (!number("trial", first, 1, 3600000, &least) || !number("trial", comma + 1, least, 3600000, &most)) {
        return false;
    }
    o->trial_ms[0] = (uint32_t)least;
    o->trial_ms[1] = (uint32_t)most;
    return true;
}

static bool add_name(tl_options *o, const char *name)
{
    for (unsigned i = 0; i < TL_LAN_NAME_OPTIONS; i++) {
        if (o->lan_name[i] == NULL) {
            o->lan_name[i] = name;
            return true;
        }
    }
    return wrong("lan-name", name, "one of the first two");
}

static bool take(tl_options *o, int option, const char *value)
{
    unsigned long n = 0;
    bool fine = true;
    switch (option) {
    case DATA:
        o->data = value;
        break;
    case LISTEN:
        fine = address("listen", value, &o->listen);
        break;
    case PROVISIONING:
        fine = address("provisioning", value, &o->provisioning);
        break;
    case LAN_NAME:
        fine = add_name(o, value);
        break;
    case ENROLLED:
        o->asks_enrolled = true;
        break;
    case PIN:
        o->pin = value;
        break;
    case GATEWAY:
        o->gateway = value;
        break;
    case GATEWAY_CA:
        o->gateway_ca_file = value;
        break;
    case TOKEN_FILE:
        o->token_file = value;
        break;
    case NAME:
        o->name = value;
        break;
    case HARDWARE_ID:
        o->hardware_id = value;
        break;
    case FIRMWARE_KEY:
        o->firmware_key = value;
        break;
    case SPARE_KEY:
        o->spare_key = value;
        break;
    case TRIAL:
        fine = trial(o, value);
        break;
    case CUT:
        fine = number("cut-power-at", value, 1, 1000000, &n);
        o->cut_at = (uint32_t)n;
        break;
    case STREAMS:
        fine = number("streams", value, 1, TL_DEVICE_STREAMS_MAX, &n);
        o->streams = (uint32_t)n;
        break;
    case BUFFER:
        fine = number("socket-buffer", value, 1024, 1 << 20, &n);
        o->socket_buffer = (int)n;
        break;
    default:
        fine = number("time-after", value, 0, 86400, &n);
        o->time_after_s = (uint32_t)n;
        break;
    }
    return fine;
}

bool tl_options_read(tl_options *o, int argc, char **argv, int *code)
{
    *o = (tl_options){
        .streams = 4,
        .firmware_key = "",
        .spare_key = "",
        .trial_ms = {TL_OTA_STEADY_MS, TL_OTA_PATIENCE_MS},
    };
    o->listen = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(8080)};
    *code = BAD_USAGE;
    for (int option; (option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        if (option == '?') {
            return false; /* getopt said it */
        }
        if (option == HELP_ || option == VERSION) {
            fputs(option == HELP_ ? HELP : "towline-device " TL_SIMULATOR_VERSION "\n", stdout);
            *code = 0;
            return false;
        }
        if (!take(o, option, optarg)) {
            return false;
        }
    }
    if (optind < argc || o->data == NULL) {
        fprintf(stderr, "towline-device: %s (--help says more)\n",
                optind < argc ? "takes options alone" : "--data DIR says where the device keeps what it knows");
        return false;
    }
    return true;
}
