/* For LD_PRELOAD: lets system calls on the files of a database fail while the file $IO_FAULT holds "CALL ERRNO", for
   example "write 28". CALL is read, write or sync. Built and used by tests/it/io_faults.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_of_database(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "portcullis.db") && !strstr(path, "-shm");
}

/* The errno that the call is to fail with, or 0. */
static int fault(const char *call, int fd) {
    static __thread int busy;
    const char *name = getenv("IO_FAULT");
    if (!name || busy) return 0;
    busy = 1;
    int code = 0, wanted;
    char word[16];
    FILE *file = fopen(name, "r");
    if (file) {
        if (fscanf(file, "%15s %d", word, &wanted) == 2 && !strcmp(word, call) && is_of_database(fd)) code = wanted;
        fclose(file);
    }
    busy = 0;
    return code;
}

#define FAIL(call, fd) \
    do { int code = fault(call, fd); if (code) { errno = code; return -1; } } while (0)

ssize_t pread64(int fd, void *to, size_t count, off64_t at) {
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread64");
    FAIL("read", fd);
    return real(fd, to, count, at);
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
    FAIL("write", fd);
    return real(fd, from, count, at);
}

ssize_t pread(int fd, void *to, size_t count, off_t at) { return pread64(fd, to, count, at); }

ssize_t pwrite(int fd, const void *from, size_t count, off_t at) { return pwrite64(fd, from, count, at); }

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
    FAIL("sync", fd);
    return real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fsync");
    FAIL("sync", fd);
    return real(fd);
}
