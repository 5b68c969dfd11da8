/* SPDX-License-Identifier: Apache-2.0 */
/* The address at which other hosts reach this one (see rendezvous.h). */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "site/rendezvous/rendezvous.h"

static bool numeric(const struct sockaddr *at, char *text, socklen_t bytes)
{
    return at && at->sa_family == AF_INET &&
           getnameinfo(at, sizeof(struct sockaddr_in), text, bytes, NULL, 0,
                       NI_NUMERICHOST) == 0;
}

static bool is_loopback(const char *text)
{
    return strncmp(text, "127.", 4) == 0;
}

/* Whether one of our interfaces has that address: names can be stale. */
static bool is_ours(const struct ifaddrs *list, const char *text)
{
    char own[NI_MAXHOST];

    for (const struct ifaddrs *at = list; at; at = at->ifa_next) {
        if (numeric(at->ifa_addr, own, sizeof(own)) && strcmp(own, text) == 0) {
            return true;
        }
    }
    return false;
}

static bool by_name(const struct ifaddrs *list, char *text, socklen_t bytes)
{
    const struct addrinfo hints = {.ai_family = AF_INET,
                                   .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char name[256];
    bool good = false;

    if (gethostname(name, sizeof(name)) != 0 ||
        getaddrinfo(name, NULL, &hints, &found) != 0) {
        return false;
    }
    for (const struct addrinfo *at = found; at && !good; at = at->ai_next) {
        good = numeric(at->ai_addr, text, bytes) && !is_loopback(text) &&
               is_ours(list, text);
    }
    freeaddrinfo(found);
    return good;
}

static bool by_interface(const struct ifaddrs *list, const char *interface,
                         char *text, socklen_t bytes)
{
    for (const struct ifaddrs *at = list; at; at = at->ifa_next) {
        bool wanted = interface ? strcmp(at->ifa_name, interface) == 0
                                : (at->ifa_flags & IFF_UP) != 0 &&
                                      !(at->ifa_flags & IFF_LOOPBACK);
        if (wanted && numeric(at->ifa_addr, text, bytes)) {
            return true;
        }
    }
    return false;
}

static fm_status_t refuse(const struct ifaddrs *list, const char *interface,
                          fm_error_t *err)
{
    fm_buf_t names = {0};
    char text[NI_MAXHOST];

    for (const struct ifaddrs *at = list; at; at = at->ifa_next) {
        if (numeric(at->ifa_addr, text, sizeof(text))) {
            fm_buf_printf(&names, " %s", at->ifa_name);
        }
    }
    fm_status_t rc =
        fm_error_set(err, FM_ERR_NOT_FOUND,
                     "interface %s has no IPv4 address; those that have:%s",
                     interface, fm_buf_cstr(&names));
    fm_buf_fini(&names);
    return rc;
}

fm_status_t fm_rendezvous_address(const char *interface, char **address_out,
                                  fm_error_t *err)
{
    struct ifaddrs *list = NULL;
    char text[NI_MAXHOST] = "127.0.0.1";
    fm_status_t rc = FM_OK;

    (void)getifaddrs(&list); /* without a list there is loopback */
    if (interface) {
        rc = by_interface(list, interface, text, sizeof(text))
                 ? FM_OK
                 : refuse(list, interface, err);
    } else if (!by_name(list, text, sizeof(text)) &&
               !by_interface(list, NULL, text, sizeof(text))) {
        (void)strcpy(text, "127.0.0.1");
    }
    if (list) {
        freeifaddrs(list);
    }
    if (rc >= 0) {
        char *copy = fm_strdup(text);
        if (!copy) {
            return fm_no_memory(err);
        }
        *address_out = copy;
    }
    return rc;
}
