/* For LD_PRELOAD: names that the file $DNS_HOSTS lists, a line "NAME ADDRESS MILLISECONDS" each, have this address, found
   after so long. Each look-up of one adds a byte to $DNS_HOSTS.count. Built and used by tests/it/upstream_dns.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    const char *hosts = getenv("DNS_HOSTS");
    FILE *file = hosts && node ? fopen(hosts, "r") : NULL;
    char name[256], address[64], count[4096];
    unsigned pause;
    while (file && fscanf(file, "%255s %63s %u", name, address, &pause) == 3) {
        if (strcmp(name, node)) continue;
        fclose(file);
        snprintf(count, sizeof count, "%s.count", hosts);
        FILE *counter = fopen(count, "a");
        if (counter) {
            fputc('x', counter);
            fclose(counter);
        }
        usleep(pause * 1000);
        return real(address, service, hints, found);
    }
    if (file) fclose(file);
    return real(node, service, hints, found);
}
