// Stands between the broker and its disk, as a preloaded library.
//
// It writes a trace of everything that changes the folder $DORMOUSE_DISK_ROOT to $DORMOUSE_DISK_TRACE, in the order in
// which it happened, with the bytes; the rig makes from it what a disk would hold after a power cut. And it obeys the
// file $DORMOUSE_DISK_CONTROL, which the test may change at any time: calls that fail, a full disk, slow or forgotten
// syncs, another wall clock.
//
// A file is known by its inode, so it does not matter by which name or descriptor it is reached. Every change is made and
// recorded under one lock: the trace has the order of the changes. A sync is recorded when it begins and when it is
// complete, and other threads write in between. Calls that go around libc are not seen; the rig compares the folder with
// the trace to find them out.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// The same numbers as in trace.rs.
enum kind { CREATE = 1, MKDIR, WRITE, TRUNCATE, RENAME, REMOVE, SYNC_BEGIN, SYNC_END, SYNC_FAILED };

struct record {
    uint32_t magic, kind;
    uint64_t at_ns, inode, a, b;
    uint32_t name_bytes, rest_bytes;
};
#define MAGIC 0x4b534944u

// The control file. The same places as in disk.rs.
struct control {
    int64_t clock_offset_ms;
    uint64_t quota_bytes, used_bytes;
    uint64_t changes, fail_changes_from, fail_changes_to, fail_changes_errno;
    uint64_t syncs, fail_syncs_from, fail_syncs_to, fail_syncs_errno;
    uint64_t sync_delay_us, forget_syncs;
    uint64_t frozen, begun, done;
};

#define INODES_MAX (1u << 16)
struct inode { uint64_t no, size; int is_dir; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct inode inodes[INODES_MAX];
static dev_t device;
static int trace = -1;
static uint64_t sync_no;
static struct control *control;

// The function that this one stands in front of.
#define REAL(name)                                                                                                     \
    ({                                                                                                                 \
        static __typeof__(&name) found;                                                                                \
        if (!found) found = real(#name);                                                                               \
        found;                                                                                                         \
    })
static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static void fatal(const char *what) {
    dprintf(2, "disk.c: %s: %s\n", what, strerror(errno));
    _exit(99);
}

// ---- one change after the other

static void leave(void) {
    __atomic_add_fetch(&control->done, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&lock);
}

// A frozen broker changes nothing any more: when as much is done as was begun, folder and trace agree.
static void enter(void) {
    pthread_mutex_lock(&lock);
    __atomic_add_fetch(&control->begun, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&control->frozen, __ATOMIC_SEQ_CST)) {
        leave();
        for (;;) pause();
    }
}

// ---- what is in the folder

static struct inode *slot(uint64_t no) {
    for (uint64_t i = no * 0x9e3779b97f4a7c15u >> 48, n = 0; n < INODES_MAX; n++) {
        struct inode *found = &inodes[(i + n) % INODES_MAX];
        if (found->no == no || found->no == 0) return found;
    }
    fatal("too many files");
    return NULL;
}

static struct inode *known(uint64_t no) {
    struct inode *found = slot(no);
    return found->no == no ? found : NULL;
}

static struct inode *learn(const struct stat *st) {
    struct inode *found = slot(st->st_ino);
    found->no = st->st_ino;
    found->is_dir = S_ISDIR(st->st_mode);
    found->size = found->is_dir ? 0 : (uint64_t)st->st_size;
    return found;
}

static void walk(const char *path) {
    struct stat st;
    if (lstat(path, &st)) fatal(path);
    device = st.st_dev;
    struct inode *here = learn(&st);
    control->used_bytes += here->size;
    if (!here->is_dir) return;
    DIR *dir = opendir(path);
    if (!dir) fatal(path);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char below[PATH_MAX];
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        walk(below);
    }
    closedir(dir);
}

__attribute__((constructor)) static void start(void) {
    const char *root = getenv("DORMOUSE_DISK_ROOT");
    const char *to = getenv("DORMOUSE_DISK_TRACE");
    const char *by = getenv("DORMOUSE_DISK_CONTROL");
    if (!root || !to || !by) return;
    int fd = REAL(open)(by, O_RDWR | O_CLOEXEC);
    if (fd < 0) fatal(by);
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED) fatal(by);
    close(fd);
    control->used_bytes = 0;
    walk(root);
    trace = REAL(open)(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) fatal(to);
}

// The inode behind a descriptor, if it is in the folder.
static struct inode *of_fd(int fd) {
    struct stat st;
    if (fstat(fd, &st) || st.st_dev != device) return NULL;
    return known(st.st_ino);
}

// A name in the folder: its directory, itself, and what is there now.
struct place { uint64_t dir, inode; const char *name; struct stat st; };

static int locate(int at, const char *path, struct place *place) {
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    struct stat st;
    if (!slash) {
        strcpy(dir, ".");
    } else if (slash == path) {
        strcpy(dir, "/");
    } else {
        if ((size_t)(slash - path) >= sizeof dir) return 0;
        memcpy(dir, path, slash - path);
        dir[slash - path] = 0;
    }
    if (fstatat(at, dir, &st, 0) || st.st_dev != device || !known(st.st_ino)) return 0;
    place->dir = st.st_ino;
    place->name = slash ? slash + 1 : path;
    place->inode = fstatat(at, path, &place->st, AT_SYMLINK_NOFOLLOW) ? 0 : place->st.st_ino;
    return 1;
}

// ---- the trace

static uint64_t now_ns(void) {
    struct timespec now;
    REAL(clock_gettime)(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void record(enum kind kind, uint64_t inode, uint64_t a, uint64_t b, const char *name, const void *rest,
                   size_t rest_bytes) {
    int before = errno;
    struct record record = {MAGIC, kind, now_ns(), inode, a, b, name ? strlen(name) : 0, rest_bytes};
    struct iovec parts[3] = {
        {&record, sizeof record}, {(void *)name, record.name_bytes}, {(void *)rest, rest_bytes}};
    size_t all = sizeof record + record.name_bytes + rest_bytes;
    if (REAL(writev)(trace, parts, 3) != (ssize_t)all) fatal("the trace cannot be written");
    errno = before;
}

// ---- faults

static int falls_in(uint64_t no, uint64_t from, uint64_t to) { return from && no >= from && no <= to; }

// Counts a change; true if it is to fail.
static int change_fails(void) {
    uint64_t no = ++control->changes;
    if (!falls_in(no, control->fail_changes_from, control->fail_changes_to)) return 0;
    errno = control->fail_changes_errno;
    return 1;
}

static int is_full(void) {
    if (!control->quota_bytes || control->used_bytes < control->quota_bytes) return 0;
    errno = ENOSPC;
    return 1;
}

static void resize(struct inode *inode, uint64_t size) {
    control->used_bytes += size - inode->size;
    inode->size = size;
}

// How much of a write there is room for. The quota counts the lengths of files.
static ssize_t room_for(const struct inode *inode, uint64_t offset, size_t bytes) {
    uint64_t end = offset + bytes;
    if (!control->quota_bytes || end <= inode->size) return bytes;
    uint64_t free = control->quota_bytes > control->used_bytes ? control->quota_bytes - control->used_bytes : 0;
    if (end - inode->size <= free) return bytes;
    uint64_t last = inode->size + free;
    if (last <= offset) {
        errno = ENOSPC;
        return -1;
    }
    return last - offset;
}

// ---- files

static ssize_t do_write(int fd, const void *bytes, size_t count, off64_t offset, int is_at) {
    struct inode *inode;
    if (trace < 0) return is_at ? REAL(pwrite64)(fd, bytes, count, offset) : REAL(write)(fd, bytes, count);
    enter();
    if (!(inode = of_fd(fd)) || inode->is_dir) {
        leave();
        return is_at ? REAL(pwrite64)(fd, bytes, count, offset) : REAL(write)(fd, bytes, count);
    }
    ssize_t done = -1;
    if (!change_fails()) {
        if (!is_at) {
            int flags = fcntl(fd, F_GETFL);
            offset = flags & O_APPEND ? (off64_t)inode->size : lseek64(fd, 0, SEEK_CUR);
        }
        ssize_t room = room_for(inode, offset, count);
        if (room >= 0) done = is_at ? REAL(pwrite64)(fd, bytes, room, offset) : REAL(write)(fd, bytes, room);
    }
    if (done > 0) {
        if ((uint64_t)offset + done > inode->size) resize(inode, offset + done);
        record(WRITE, inode->no, offset, 0, NULL, bytes, done);
    }
    leave();
    return done;
}

ssize_t write(int fd, const void *bytes, size_t count) { return do_write(fd, bytes, count, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) { return do_write(fd, bytes, count, offset, 1); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) { return do_write(fd, bytes, count, offset, 1); }

static ssize_t do_writev(int fd, const struct iovec *parts, int count, off64_t offset, int is_at) {
    struct inode *inode = NULL;
    if (trace >= 0) {
        enter();
        inode = of_fd(fd);
        leave();
    }
    if (!inode) return is_at ? REAL(pwritev64)(fd, parts, count, offset) : REAL(writev)(fd, parts, count);
    // One part is a short write, which the caller has to bear.
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return do_write(fd, parts[i].iov_base, parts[i].iov_len, offset, is_at);
    return 0;
}

ssize_t writev(int fd, const struct iovec *parts, int count) { return do_writev(fd, parts, count, 0, 0); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return do_writev(fd, parts, count, offset, 1); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) { return do_writev(fd, parts, count, offset, 1); }

static int do_truncate(int fd, off64_t size) {
    struct inode *inode;
    if (trace < 0) return REAL(ftruncate64)(fd, size);
    enter();
    if (!(inode = of_fd(fd))) {
        leave();
        return REAL(ftruncate64)(fd, size);
    }
    int done = -1;
    if (!change_fails() && ((uint64_t)size <= inode->size || room_for(inode, size, 0) == 0))
        done = REAL(ftruncate64)(fd, size);
    if (done == 0) {
        resize(inode, size);
        record(TRUNCATE, inode->no, size, 0, NULL, NULL, 0);
    }
    leave();
    return done;
}

int ftruncate(int fd, off_t size) { return do_truncate(fd, size); }
int ftruncate64(int fd, off64_t size) { return do_truncate(fd, size); }

// Only makes files longer here: with zeros, as ftruncate does.
static int do_allocate(int fd, int mode, off64_t offset, off64_t bytes) {
    struct inode *inode;
    if (trace < 0) return REAL(fallocate64)(fd, mode, offset, bytes);
    enter();
    if (!(inode = of_fd(fd))) {
        leave();
        return REAL(fallocate64)(fd, mode, offset, bytes);
    }
    if (mode) fatal("fallocate in a mode that is not recorded");
    uint64_t size = offset + bytes;
    ssize_t more = size > inode->size ? size - inode->size : 0;
    int done = -1;
    if (!change_fails()) {
        if (room_for(inode, inode->size, more) == more) done = REAL(fallocate64)(fd, mode, offset, bytes);
        else errno = ENOSPC;
    }
    if (done == 0 && size > inode->size) {
        resize(inode, size);
        record(TRUNCATE, inode->no, size, 0, NULL, NULL, 0);
    }
    leave();
    return done;
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) { return do_allocate(fd, mode, offset, bytes); }
int fallocate64(int fd, int mode, off64_t offset, off64_t bytes) { return do_allocate(fd, mode, offset, bytes); }

static int do_open(int at, const char *path, int flags, mode_t mode) {
    struct place place;
    if (trace < 0 || !(flags & (O_CREAT | O_TRUNC))) return REAL(openat64)(at, path, flags, mode);
    enter();
    if (!locate(at, path, &place)) {
        leave();
        return REAL(openat64)(at, path, flags, mode);
    }
    int is_new = !place.inode && flags & O_CREAT;
    int fd = -1;
    if (!is_new || (!change_fails() && !is_full())) fd = REAL(openat64)(at, path, flags, mode);
    struct stat st;
    if (fd >= 0 && !fstat(fd, &st)) {
        if (is_new) {
            learn(&st);
            record(CREATE, st.st_ino, place.dir, 0, place.name, NULL, 0);
        } else if (flags & O_TRUNC && known(st.st_ino)) {
            resize(known(st.st_ino), 0);
            record(TRUNCATE, st.st_ino, 0, 0, NULL, NULL, 0);
        }
    }
    leave();
    return fd;
}

#define OPEN(name, before, at)                                                                                         \
    int name(before const char *path, int flags, ...) {                                                               \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return do_open(at, path, flags, mode);                                                                         \
    }
#define NOTHING
#define FOLDER int at,
OPEN(open, NOTHING, AT_FDCWD)
OPEN(open64, NOTHING, AT_FDCWD)
OPEN(openat, FOLDER, at)
OPEN(openat64, FOLDER, at)

// ---- syncs

static int do_sync(int fd, int (*sync)(int), int is_commit) {
    struct inode *inode;
    if (trace < 0) return sync(fd);
    enter();
    if (!(inode = of_fd(fd))) {
        leave();
        return sync(fd);
    }
    uint64_t no = ++sync_no, id = inode->no, counted = ++control->syncs;
    int forgets = control->forget_syncs && is_commit;
    int fails = falls_in(counted, control->fail_syncs_from, control->fail_syncs_to);
    uint64_t delay_us = control->sync_delay_us;
    record(SYNC_BEGIN, id, no, 0, NULL, NULL, 0);
    leave();
    if (delay_us) {
        // From half of it to one and a half.
        delay_us = delay_us / 2 + no * 0x9e3779b97f4a7c15u % delay_us;
        struct timespec delay = {delay_us / 1000000, delay_us % 1000000 * 1000};
        nanosleep(&delay, NULL);
    }
    int done = fails ? -1 : sync(fd);
    if (fails) errno = control->fail_syncs_errno;
    enter();
    if (!forgets) record(done ? SYNC_FAILED : SYNC_END, id, no, 0, NULL, NULL, 0);
    leave();
    return done;
}

int fsync(int fd) { return do_sync(fd, REAL(fsync), 0); }
int fdatasync(int fd) { return do_sync(fd, REAL(fdatasync), 1); }
// sync_file_range guarantees nothing, so there is nothing to record.

// ---- names

static int do_rename(int from_at, const char *from, int to_at, const char *to) {
    struct place old, new;
    if (trace < 0) return REAL(renameat)(from_at, from, to_at, to);
    enter();
    int is_ours = locate(from_at, from, &old) && locate(to_at, to, &new);
    int done = is_ours && change_fails() ? -1 : REAL(renameat)(from_at, from, to_at, to);
    if (is_ours && done == 0) {
        struct inode *replaced = new.inode && new.inode != old.inode ? known(new.inode) : NULL;
        if (replaced) resize(replaced, 0);
        record(RENAME, old.inode, old.dir, new.dir, old.name, new.name, strlen(new.name));
    }
    leave();
    return done;
}

int rename(const char *from, const char *to) { return do_rename(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return do_rename(from_at, from, to_at, to); }

static int do_remove(int at, const char *path, int flags) {
    struct place place;
    if (trace < 0) return REAL(unlinkat)(at, path, flags);
    enter();
    int is_ours = locate(at, path, &place) && place.inode;
    int done = is_ours && change_fails() ? -1 : REAL(unlinkat)(at, path, flags);
    if (is_ours && done == 0) {
        if (known(place.inode)) resize(known(place.inode), 0);
        record(REMOVE, place.inode, place.dir, 0, place.name, NULL, 0);
    }
    leave();
    return done;
}

int unlink(const char *path) { return do_remove(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return do_remove(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int at, const char *path, int flags) { return do_remove(at, path, flags); }

static int do_mkdir(int at, const char *path, mode_t mode) {
    struct place place;
    struct stat st;
    if (trace < 0) return REAL(mkdirat)(at, path, mode);
    enter();
    int is_ours = locate(at, path, &place) && !place.inode;
    int done = is_ours && (change_fails() || is_full()) ? -1 : REAL(mkdirat)(at, path, mode);
    if (is_ours && done == 0 && !fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW)) {
        learn(&st);
        record(MKDIR, st.st_ino, place.dir, 0, place.name, NULL, 0);
    }
    leave();
    return done;
}

int mkdir(const char *path, mode_t mode) { return do_mkdir(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return do_mkdir(at, path, mode); }

// ---- the wall clock

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = REAL(clock_gettime)(clock, now);
    if (done == 0 && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ms = control->clock_offset_ms;
        now->tv_sec += ms / 1000;
        now->tv_nsec += ms % 1000 * 1000000;
        if (now->tv_nsec < 0) now->tv_sec--, now->tv_nsec += 1000000000;
        if (now->tv_nsec >= 1000000000) now->tv_sec++, now->tv_nsec -= 1000000000;
    }
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    *now = (struct timeval){exact.tv_sec, exact.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *to) {
    struct timespec exact;
    time_t now = clock_gettime(CLOCK_REALTIME, &exact) ? -1 : exact.tv_sec;
    if (to) *to = now;
    return now;
}
