/* Descriptors on their way from one process to another: SCM_RIGHTS of unix(7). */
#include "nexus_fuse.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
  struct cmsghdr header;
  char space[CMSG_SPACE(sizeof(int))];
};

int receive_descriptor(int socket) {
  char byte;
  union control control;
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
  ssize_t length;
  do length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (length < 0 && errno == EINTR);
  if (length <= 0) return -1;

  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) return -1;
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return fd;
}

/* Returns 0 or an errno. */
static int send_descriptor(int socket, int fd) {
  char byte = 0;
  union control control = {0};
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(fd));
  memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  ssize_t length;
  do length = sendmsg(socket, &message, MSG_NOSIGNAL);
  while (length < 0 && errno == EINTR);
  return length < 0 ? errno : 0;
}

napi_value nexus_socket_pair(napi_env env, napi_callback_info info) {
  (void)info;
  int ends[2];
  napi_value pair;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw_errno(env, errno, "socketpair", NULL);
    return NULL;
  }
  if (napi_create_array_with_length(env, 2, &pair) == napi_ok) {
    for (int end = 0; end < 2; end++) napi_set_element(env, pair, (uint32_t)end, make_int(env, ends[end]));
    return pair;
  }
  close(ends[0]);
  close(ends[1]);
  return NULL;
}

napi_value nexus_send_descriptor(napi_env env, napi_callback_info info) {
  napi_value args[2];
  int socket, fd;
  if (!get_args(env, info, 2, args) || !get_int(env, args[0], &socket) || !get_int(env, args[1], &fd)) return NULL;
  int error = send_descriptor(socket, fd);
  if (error != 0) throw_errno(env, error, "sendmsg", NULL);
  return NULL;
}

napi_value nexus_receive_descriptor(napi_env env, napi_callback_info info) {
  napi_value args[1];
  int socket;
  if (!get_args(env, info, 1, args) || !get_int(env, args[0], &socket)) return NULL;
  int fd = receive_descriptor(socket);
  if (fd >= 0) return make_int(env, fd);
  throw_errno(env, EPIPE, "recvmsg", NULL);
  return NULL;
}
