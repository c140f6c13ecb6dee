/* The table of what the addon exports. */
#include "nexus_fuse.h"

static const napi_property_descriptor exported[] = {
    {"mount", NULL, nexus_mount, NULL, NULL, NULL, napi_enumerable, NULL},
    {"umount", NULL, nexus_umount, NULL, NULL, NULL, napi_enumerable, NULL},
    {"mountWithHelper", NULL, nexus_mount_with_helper, NULL, NULL, NULL, napi_enumerable, NULL},
    {"read", NULL, nexus_read, NULL, NULL, NULL, napi_enumerable, NULL},
    {"poll", NULL, nexus_poll, NULL, NULL, NULL, napi_enumerable, NULL},
    {"reply", NULL, nexus_reply, NULL, NULL, NULL, napi_enumerable, NULL},
    {"watch", NULL, nexus_watch, NULL, NULL, NULL, napi_enumerable, NULL},
    {"unwatch", NULL, nexus_unwatch, NULL, NULL, NULL, napi_enumerable, NULL},
    {"startNotifier", NULL, nexus_start_notifier, NULL, NULL, NULL, napi_enumerable, NULL},
    {"notifierFd", NULL, nexus_notifier_fd, NULL, NULL, NULL, napi_enumerable, NULL},
    {"notify", NULL, nexus_notify, NULL, NULL, NULL, napi_enumerable, NULL},
    {"syncFilesystem", NULL, nexus_sync_filesystem, NULL, NULL, NULL, napi_enumerable, NULL},
    {"flushFiles", NULL, nexus_flush_files, NULL, NULL, NULL, napi_enumerable, NULL},
    {"touch", NULL, nexus_touch, NULL, NULL, NULL, napi_enumerable, NULL},
    {"notifierThread", NULL, nexus_notifier_thread, NULL, NULL, NULL, napi_enumerable, NULL},
    {"takeResults", NULL, nexus_take_results, NULL, NULL, NULL, napi_enumerable, NULL},
    {"takeBack", NULL, nexus_take_back, NULL, NULL, NULL, napi_enumerable, NULL},
    {"stopNotifier", NULL, nexus_stop_notifier, NULL, NULL, NULL, napi_enumerable, NULL},
    {"willNeed", NULL, nexus_will_need, NULL, NULL, NULL, napi_enumerable, NULL},
    {"peerCredentials", NULL, nexus_peer_credentials, NULL, NULL, NULL, napi_enumerable, NULL},
    {"socketPair", NULL, nexus_socket_pair, NULL, NULL, NULL, napi_enumerable, NULL},
    {"sendDescriptor", NULL, nexus_send_descriptor, NULL, NULL, NULL, napi_enumerable, NULL},
    {"receiveDescriptor", NULL, nexus_receive_descriptor, NULL, NULL, NULL, napi_enumerable, NULL},
    {"memoryFile", NULL, nexus_memory_file, NULL, NULL, NULL, napi_enumerable, NULL},
    {"mapShared", NULL, nexus_map_shared, NULL, NULL, NULL, napi_enumerable, NULL},
    {"dieWithParent", NULL, nexus_die_with_parent, NULL, NULL, NULL, napi_enumerable, NULL},
    {"clockTimer", NULL, nexus_clock_timer, NULL, NULL, NULL, napi_enumerable, NULL},
    {"armClockTimer", NULL, nexus_arm_clock_timer, NULL, NULL, NULL, napi_enumerable, NULL},
    {"readClockTimer", NULL, nexus_read_clock_timer, NULL, NULL, NULL, napi_enumerable, NULL},
    {"sharesDescriptors", NULL, nexus_shares_descriptors, NULL, NULL, NULL, napi_enumerable, NULL},
};

NAPI_MODULE_INIT() {
  size_t count = sizeof(exported) / sizeof(exported[0]);
  if (napi_define_properties(env, exports, count, exported) != napi_ok) return NULL;
  return exports;
}
