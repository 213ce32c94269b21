#include "fault_vfs.h"

#include <pthread.h>
#include <sqlite3.h>
#include <string.h>

typedef struct {
    sqlite3_file base;
    const char *name;
    // The real file stands behind this one.
} fault_file;

static sqlite3_vfs shim;
static sqlite3_vfs *real_vfs;
static sqlite3_io_methods methods;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char armed_path[1024];
static int left;
static int armed_code;
static int failures;

static sqlite3_file *real(sqlite3_file *file) { return (sqlite3_file *)((fault_file *)file + 1); }

static int fault(sqlite3_file *file) {
    int code = SQLITE_OK;
    const char *name = ((fault_file *)file)->name;
    pthread_mutex_lock(&mutex);
    if (armed_path[0] && name && strstr(name, armed_path)) {
        if (left > 0) left--;
        if (left == 0) {
            code = armed_code;
            failures++;
        }
    }
    pthread_mutex_unlock(&mutex);
    return code;
}

static int f_close(sqlite3_file *f) { return real(f)->pMethods->xClose(real(f)); }
static int f_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at) {
    return real(f)->pMethods->xRead(real(f), to, n, at);
}
static int f_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at) {
    int code = fault(f);
    return code ? code : real(f)->pMethods->xWrite(real(f), from, n, at);
}
static int f_truncate(sqlite3_file *f, sqlite3_int64 size) {
    int code = fault(f);
    return code ? code : real(f)->pMethods->xTruncate(real(f), size);
}
static int f_sync(sqlite3_file *f, int flags) {
    int code = fault(f);
    return code ? code : real(f)->pMethods->xSync(real(f), flags);
}
static int f_size(sqlite3_file *f, sqlite3_int64 *size) { return real(f)->pMethods->xFileSize(real(f), size); }
static int f_lock(sqlite3_file *f, int lock) { return real(f)->pMethods->xLock(real(f), lock); }
static int f_unlock(sqlite3_file *f, int lock) { return real(f)->pMethods->xUnlock(real(f), lock); }
static int f_reserved(sqlite3_file *f, int *out) { return real(f)->pMethods->xCheckReservedLock(real(f), out); }
static int f_control(sqlite3_file *f, int op, void *arg) { return real(f)->pMethods->xFileControl(real(f), op, arg); }
static int f_sector(sqlite3_file *f) { return real(f)->pMethods->xSectorSize(real(f)); }
static int f_device(sqlite3_file *f) { return real(f)->pMethods->xDeviceCharacteristics(real(f)); }
static int f_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out) {
    return real(f)->pMethods->xShmMap(real(f), page, size, extend, out);
}
static int f_shm_lock(sqlite3_file *f, int offset, int n, int flags) {
    return real(f)->pMethods->xShmLock(real(f), offset, n, flags);
}
static void f_shm_barrier(sqlite3_file *f) { real(f)->pMethods->xShmBarrier(real(f)); }
static int f_shm_unmap(sqlite3_file *f, int remove) { return real(f)->pMethods->xShmUnmap(real(f), remove); }

static int v_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out) {
    (void)vfs;
    fault_file *own = (fault_file *)file;
    own->name = name;
    own->base.pMethods = NULL;
    int code = real_vfs->xOpen(real_vfs, name, real(file), flags, out);
    // A file that has methods is closed by SQLite, also where it could not be opened.
    if (real(file)->pMethods) own->base.pMethods = &methods;
    return code;
}

static void install(void) {
    real_vfs = sqlite3_vfs_find(NULL);
    shim = *real_vfs;
    shim.zName = "fault";
    shim.pNext = NULL;
    shim.szOsFile = (int)sizeof(fault_file) + real_vfs->szOsFile;
    shim.xOpen = v_open;
    // Version 2: no pages mapped into memory, which would be written past these functions.
    methods = (sqlite3_io_methods){
        2, f_close, f_read, f_write, f_truncate, f_sync, f_size, f_lock, f_unlock, f_reserved, f_control, f_sector,
        f_device, f_shm_map, f_shm_lock, f_shm_barrier, f_shm_unmap, NULL, NULL,
    };
    sqlite3_vfs_register(&shim, 1);
}

void fault_vfs_install(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
}

void fault_vfs_arm(const char *path, int after, int code) {
    pthread_mutex_lock(&mutex);
    strncpy(armed_path, path, sizeof armed_path - 1);
    left = after;
    armed_code = code;
    failures = 0;
    pthread_mutex_unlock(&mutex);
}

int fault_vfs_failures(void) {
    pthread_mutex_lock(&mutex);
    int count = failures;
    pthread_mutex_unlock(&mutex);
    return count;
}
