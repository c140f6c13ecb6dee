/*
 * The addon that moves bytes and descriptors between JavaScript and /dev/fuse.
 *
 * There is no policy and no protocol in it: src/fuse/binding.ts is its only user and documents
 * each function. One file per concern; what they share is declared here.
 */
#ifndef NEXUS_FUSE_H
#define NEXUS_FUSE_H

#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* error.c: errnos as JavaScript errors, and arguments out of JavaScript. */

/* Throws an Error with code, errno and syscall as Node's own have; detail may be NULL. */
void throw_errno(napi_env env, int error, const char *syscall, const char *detail);

/* These throw a TypeError and return false (or NULL) when the caller's arguments are off. */
bool get_args(napi_env env, napi_callback_info info, size_t count, napi_value *values);
bool get_int(napi_env env, napi_value value, int *number);
bool get_bytes(napi_env env, napi_value value, void **bytes, size_t *length);
/* Items of a typed array of this type, which are aligned; any other is a TypeError. */
bool get_array(napi_env env, napi_value value, napi_typedarray_type type, void **items, size_t *count);

/* What every struct behind a handle begins with, so that none is taken for another. */
enum handle_kind { HANDLE_WATCH = 0x6e787761, HANDLE_NOTIFIER = 0x6e786e6f };
bool get_handle(napi_env env, napi_value value, enum handle_kind kind, void **handle);

/* A malloc'ed, terminated copy of a string that holds no NUL byte. */
char *get_string(napi_env env, napi_value value);

napi_value make_int(napi_env env, int number);

/* descriptor.c: the descriptor that comes over a socket, or -1 when that is closed without one. Waits. */
int receive_descriptor(int socket);

/* touch.c: does one errand through the mount, and waits as long as the kernel does. Returns 0 or a negative errno. */
int32_t touch(const char *bytes, size_t length);
/* A descriptor of the inode that the kernel has of a node, or a negative errno. */
int open_node(int mount, uint64_t node, uint32_t generation, int flags);

/* The functions that JavaScript sees. */
napi_value nexus_mount(napi_env env, napi_callback_info info);
napi_value nexus_umount(napi_env env, napi_callback_info info);
napi_value nexus_mount_with_helper(napi_env env, napi_callback_info info);
napi_value nexus_read(napi_env env, napi_callback_info info);
napi_value nexus_poll(napi_env env, napi_callback_info info);
napi_value nexus_reply(napi_env env, napi_callback_info info);
napi_value nexus_watch(napi_env env, napi_callback_info info);
napi_value nexus_unwatch(napi_env env, napi_callback_info info);
napi_value nexus_start_notifier(napi_env env, napi_callback_info info);
napi_value nexus_notifier_fd(napi_env env, napi_callback_info info);
napi_value nexus_notify(napi_env env, napi_callback_info info);
napi_value nexus_sync_filesystem(napi_env env, napi_callback_info info);
napi_value nexus_flush_files(napi_env env, napi_callback_info info);
napi_value nexus_touch(napi_env env, napi_callback_info info);
napi_value nexus_notifier_thread(napi_env env, napi_callback_info info);
napi_value nexus_take_results(napi_env env, napi_callback_info info);
napi_value nexus_take_back(napi_env env, napi_callback_info info);
napi_value nexus_stop_notifier(napi_env env, napi_callback_info info);
napi_value nexus_will_need(napi_env env, napi_callback_info info);
napi_value nexus_peer_credentials(napi_env env, napi_callback_info info);
napi_value nexus_socket_pair(napi_env env, napi_callback_info info);
napi_value nexus_send_descriptor(napi_env env, napi_callback_info info);
napi_value nexus_receive_descriptor(napi_env env, napi_callback_info info);
napi_value nexus_memory_file(napi_env env, napi_callback_info info);
napi_value nexus_map_shared(napi_env env, napi_callback_info info);
napi_value nexus_die_with_parent(napi_env env, napi_callback_info info);
napi_value nexus_clock_timer(napi_env env, napi_callback_info info);
napi_value nexus_arm_clock_timer(napi_env env, napi_callback_info info);
napi_value nexus_read_clock_timer(napi_env env, napi_callback_info info);
napi_value nexus_shares_descriptors(napi_env env, napi_callback_info info);

#endif
