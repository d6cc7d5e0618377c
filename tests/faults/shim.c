/* Preloaded: counts the calls below a directory that open, write or change names, and fails the one
   that is asked for.

   Not reached: what libc does inside of itself (fclose writing what fwrite has held), calls that a
   library makes without libc, and memory that is mapped for writing. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum op { LIST, READ, OPEN, CREATE, WRITE, SYNC, RENAME, MKDIR, TRUNCATE, REMOVE, NUM_OPS };

static const char *const NAMES[] = {"list",   "read",  "open",     "create", "write", "sync",
                                    "rename", "mkdir", "truncate", "remove"};
static const int ERRORS[NUM_OPS][8] = {
    [LIST] = {EMFILE, EIO, EACCES},
    [READ] = {EMFILE, EIO, EACCES},
    [OPEN] = {EIO, EMFILE, EROFS, EACCES},
    [CREATE] = {ENOSPC, EIO, EMFILE, EDQUOT, EROFS, EACCES},
    [WRITE] = {ENOSPC, EIO, EFBIG, EDQUOT},
    [SYNC] = {EIO, ENOSPC, EDQUOT},
    [RENAME] = {ENOSPC, EIO, EDQUOT, EROFS, EACCES},
    [MKDIR] = {ENOSPC, EIO, EDQUOT, EROFS, EACCES},
    [TRUNCATE] = {EFBIG, EIO, EROFS},
    [REMOVE] = {EIO, EROFS, EACCES},
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static long num_calls, failing, choice;
static int goes_on, error_of_all, records;
static char *log_text;
static size_t log_size;
static FILE *log_file;

#define REAL(type, name, ...)                                                                      \
    static type (*real)(__VA_ARGS__);                                                              \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

/* Fail call number `k` (from 1; 0: none) below a directory with one of the errors that it can have,
   chosen by `which`; `persists`: and all later calls that can have the same. */
void fault_arm(const char *directory, long k, long which, int persists) {
    strncpy(root, directory, sizeof root - 1);
    failing = k, choice = which, goes_on = persists;
    num_calls = 0, error_of_all = 0;
    log_file = open_memstream(&log_text, &log_size);
}

/* Write into the log also what each call has changed, for `power_cut.py`. */
void fault_record(void) { records = 1; }

/* A line for each call: its name and path, and the error if it has failed. */
const char *fault_log(void) {
    root[0] = 0;
    fflush(log_file);
    return log_text;
}

static int below(const char *path) {
    size_t length = strlen(root);
    return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int place_of(int descriptor, const char *path, char *place) {
    char link[64];
    ssize_t length = 0;
    if (!root[0]) return 0;
    place[0] = 0;
    if (path && path[0] == '/') {
        snprintf(place, PATH_MAX, "%s", path);
    } else {
        snprintf(link, sizeof link, descriptor == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d",
                 descriptor);
        REAL(ssize_t, readlink, const char *, char *, size_t);
        length = real(link, place, PATH_MAX / 2);
        if (length < 0) return 0;
        snprintf(place + length, PATH_MAX - length, "%s%s", path ? "/" : "", path ? path : "");
    }
    return below(place);
}

/* Whether the call fails; errno is set then. */
static int fails(enum op op, int descriptor, const char *path) {
    char place[PATH_MAX];
    int before = errno, error = 0, num_errors = 0, last = 0;
    if (!place_of(descriptor, path, place)) {
        errno = before;
        return 0;
    }
    pthread_mutex_lock(&mutex);
    num_calls++;
    while (ERRORS[op][num_errors]) num_errors++;
    if (num_calls == failing) {
        error = ERRORS[op][choice % num_errors];
        error_of_all = goes_on ? error : 0;
    } else if (error_of_all) {
        for (last = 0; last < num_errors; last++)
            if (ERRORS[op][last] == error_of_all) error = error_of_all;
    }
    fprintf(log_file, "%s %s%s%s\n", NAMES[op], place + strlen(root), error ? ": " : "",
            error ? strerrorname_np(error) : "");
    pthread_mutex_unlock(&mutex);
    errno = error ? error : before;
    return error != 0;
}

static enum op op_of(int flags) {
    return flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? CREATE
           : (flags & O_ACCMODE) != O_RDONLY              ? OPEN
                                                          : READ;
}

/* Logs what a call has changed: the inode of a file, and a text; errno stays. */
static void record(int file, const char *path, const char *format, ...) {
    char place[PATH_MAX];
    struct stat status = {0};
    int before = errno;
    if (records && place_of(path ? AT_FDCWD : file, path, place)) {
        va_list rest;
        if (path ? lstat(place, &status) : fstat(file, &status)) status.st_ino = 0;
        pthread_mutex_lock(&mutex);
        fprintf(log_file, "= %ld ", (long)status.st_ino);
        va_start(rest, format);
        vfprintf(log_file, format, rest);
        va_end(rest);
        fprintf(log_file, " %s\n", place + strlen(root));
        pthread_mutex_unlock(&mutex);
    }
    errno = before;
}

static ssize_t recorded(int file, const void *data, ssize_t size, off_t where) {
    if (records && size > 0) {
        char *text = malloc(2 * size + 1);
        for (ssize_t i = 0; i < size; i++)
            sprintf(text + 2 * i, "%02x", ((const unsigned char *)data)[i]);
        record(file, NULL, "write %ld %s", (long)where, text);
        free(text);
    }
    return size;
}

static int exists(int at, const char *path) {
    struct stat status;
    int before = errno, is_there = records && !fstatat(at, path, &status, 0);
    errno = before;
    return is_there;
}

/* After a file is opened that was there before, or was not. */
static int opened(int file, int flags, int was_there) {
    if (records && file >= 0 && op_of(flags) >= OPEN) {
        if (!was_there) record(file, NULL, "create");
        else if (flags & O_TRUNC) record(file, NULL, "truncate 0");
    }
    return file;
}

#define MODE_OF(flags)                                                                             \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {                                        \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode = va_arg(rest, mode_t);                                                               \
        va_end(rest);                                                                              \
    }

#define OPEN_CALL(name)                                                                            \
    int name(const char *path, int flags, ...) {                                                   \
        MODE_OF(flags);                                                                            \
        REAL(int, name, const char *, int, mode_t);                                                \
        int was_there = exists(AT_FDCWD, path);                                                    \
        if (fails(op_of(flags), AT_FDCWD, path)) return -1;                                        \
        return opened(real(path, flags, mode), flags, was_there);                                  \
    }
OPEN_CALL(open)
OPEN_CALL(open64)

#define OPENAT_CALL(name)                                                                          \
    int name(int at, const char *path, int flags, ...) {                                           \
        MODE_OF(flags);                                                                            \
        REAL(int, name, int, const char *, int, mode_t);                                           \
        int was_there = exists(at, path);                                                          \
        if (fails(op_of(flags), at, path)) return -1;                                              \
        return opened(real(at, path, flags, mode), flags, was_there);                              \
    }
OPENAT_CALL(openat)
OPENAT_CALL(openat64)

#define FOPEN_CALL(name)                                                                           \
    FILE *name(const char *path, const char *mode) {                                               \
        REAL(FILE *, name, const char *, const char *);                                            \
        enum op op = strpbrk(mode, "wa") ? CREATE : strchr(mode, '+') ? OPEN : READ;               \
        return fails(op, AT_FDCWD, path) ? NULL : real(path, mode);                                \
    }
FOPEN_CALL(fopen)
FOPEN_CALL(fopen64)

DIR *opendir(const char *path) {
    REAL(DIR *, opendir, const char *);
    return fails(LIST, AT_FDCWD, path) ? NULL : real(path);
}

/* A disk that fills takes a part of what is written before it refuses. */
static size_t part_of(size_t size) { return error_of_all && size > 1 ? size / 2 : 0; }

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    int was_full = error_of_all;
    if (!fails(WRITE, file, NULL)) {
        ssize_t done = real(file, data, size);
        return recorded(file, data, done, records ? lseek(file, 0, SEEK_CUR) - done : 0);
    }
    return !was_full && part_of(size) ? real(file, data, part_of(size)) : -1;
}

#define PWRITE_CALL(name)                                                                          \
    ssize_t name(int file, const void *data, size_t size, off_t where) {                           \
        REAL(ssize_t, name, int, const void *, size_t, off_t);                                     \
        if (fails(WRITE, file, NULL)) return -1;                                                   \
        return recorded(file, data, real(file, data, size, where), where);                         \
    }
PWRITE_CALL(pwrite)
PWRITE_CALL(pwrite64)

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    return fails(WRITE, file, NULL) ? -1 : real(file, parts, count);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    REAL(size_t, fwrite, const void *, size_t, size_t, FILE *);
    return fails(WRITE, fileno(file), NULL) ? 0 : real(data, size, count, file);
}

#define SENDFILE_CALL(name)                                                                        \
    ssize_t name(int out, int in, off_t *where, size_t size) {                                     \
        REAL(ssize_t, name, int, int, off_t *, size_t);                                            \
        return fails(WRITE, out, NULL) ? -1 : real(out, in, where, size);                          \
    }
SENDFILE_CALL(sendfile)
SENDFILE_CALL(sendfile64)

ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t size, unsigned flags) {
    REAL(ssize_t, copy_file_range, int, off_t *, int, off_t *, size_t, unsigned);
    return fails(WRITE, out, NULL) ? -1 : real(in, from, out, to, size, flags);
}

#define FALLOCATE_CALL(name, ...)                                                                  \
    int posix_##name(int file, off_t where, off_t size) {                                          \
        REAL(int, posix_##name, int, off_t, off_t);                                                \
        return fails(WRITE, file, NULL) ? errno : real(file, where, size);                         \
    }                                                                                              \
    int name(int file, int mode, off_t where, off_t size) {                                        \
        REAL(int, name, int, int, off_t, off_t);                                                   \
        return fails(WRITE, file, NULL) ? -1 : real(file, mode, where, size);                      \
    }
FALLOCATE_CALL(fallocate)
FALLOCATE_CALL(fallocate64)

/* Nothing has to last here: calls below the directory that succeed do nothing. */
#define SYNC_CALL(name)                                                                            \
    int name(int file) {                                                                           \
        REAL(int, name, int);                                                                      \
        if (!root[0]) return real(file);                                                           \
        if (fails(SYNC, file, NULL)) return -1;                                                    \
        record(file, NULL, "sync");                                                                \
        return 0;                                                                                  \
    }
SYNC_CALL(fsync)
SYNC_CALL(fdatasync)

#define TRUNCATE_CALL(name)                                                                        \
    int name(const char *path, off_t size) {                                                       \
        REAL(int, name, const char *, off_t);                                                      \
        if (fails(TRUNCATE, AT_FDCWD, path)) return -1;                                            \
        record(0, path, "truncate %ld", (long)size);                                               \
        return real(path, size);                                                                   \
    }                                                                                              \
    int f##name(int file, off_t size) {                                                            \
        REAL(int, f##name, int, off_t);                                                            \
        if (fails(TRUNCATE, file, NULL)) return -1;                                                \
        record(file, NULL, "truncate %ld", (long)size);                                            \
        return real(file, size);                                                                   \
    }
TRUNCATE_CALL(truncate)
TRUNCATE_CALL(truncate64)

/* Names are recorded before they change: what fails afterwards is a fault of the test. */
static void moves(const char *from, const char *to, const char *how) {
    char place[PATH_MAX];
    if (place_of(AT_FDCWD, to, place)) record(0, from, "%s %s", how, place + strlen(root));
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    if (fails(RENAME, AT_FDCWD, to)) return -1;
    moves(from, to, "rename");
    return real(from, to);
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    if (fails(RENAME, to_at, to)) return -1;
    moves(from, to, "rename");
    return real(from_at, from, to_at, to);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    if (fails(RENAME, to_at, to)) return -1;
    moves(from, to, flags & RENAME_EXCHANGE ? "exchange" : "rename");
    return real(from_at, from, to_at, to, flags);
}

int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    return fails(RENAME, AT_FDCWD, to) ? -1 : real(from, to);
}

int symlink(const char *target, const char *path) {
    REAL(int, symlink, const char *, const char *);
    return fails(RENAME, AT_FDCWD, path) ? -1 : real(target, path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    if (fails(MKDIR, AT_FDCWD, path)) return -1;
    int result = real(path, mode);
    if (!result) record(0, path, "mkdir");
    return result;
}

int mkdirat(int at, const char *path, mode_t mode) {
    REAL(int, mkdirat, int, const char *, mode_t);
    return fails(MKDIR, at, path) ? -1 : real(at, path, mode);
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    if (fails(REMOVE, AT_FDCWD, path)) return -1;
    record(0, path, "remove");
    return real(path);
}

int rmdir(const char *path) {
    REAL(int, rmdir, const char *);
    if (fails(REMOVE, AT_FDCWD, path)) return -1;
    record(0, path, "remove");
    return real(path);
}

int unlinkat(int at, const char *path, int flags) {
    char place[PATH_MAX];
    REAL(int, unlinkat, int, const char *, int);
    if (fails(REMOVE, at, path)) return -1;
    if (place_of(at, path, place)) record(0, place, "remove");
    return real(at, path, flags);
}
