{
  'targets': [{
    'target_name': 'nexus_fuse',
    'sources': [
      'src/fuse/native/module.c',
      'src/fuse/native/error.c',
      'src/fuse/native/mount.c',
      'src/fuse/native/helper.c',
      'src/fuse/native/channel.c',
      'src/fuse/native/watch.c',
      'src/fuse/native/notifier.c',
      'src/fuse/native/touch.c',
      'src/fuse/native/system.c',
      'src/fuse/native/clock.c',
      'src/fuse/native/descriptor.c',
      'src/fuse/native/kcmp.c',
      'src/fuse/native/shared.c'
    ],
    'defines': ['NAPI_VERSION=8', '_GNU_SOURCE'],
    'cflags': ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', '-fvisibility=hidden']
  }]
}
