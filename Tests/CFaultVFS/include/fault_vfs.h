// An SQLite VFS that fails on demand: writes, syncs and truncations of some files return an error
// (sqlite.org/vfs.html, "VFS shims").
#ifndef FAULT_VFS_H
#define FAULT_VFS_H

// Puts the shim in front of the default VFS, once: databases that are opened from then on go through it.
void fault_vfs_install(void);

// From the `after`th operation on, those on files whose path holds `path` fail with `code`, until it is called again.
// An empty path disarms it.
void fault_vfs_arm(const char *path, int after, int code);

// How many operations have failed since it was armed.
int fault_vfs_failures(void);

#endif
