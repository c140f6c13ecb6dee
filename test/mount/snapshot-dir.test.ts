/** `--snapshot-dir`: a workspace shows its snapshots under another name, so that trees with a `.snapshots` fit in. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Service } from '../../src/api/calls.ts'
import type { WorkspaceInfo } from '../../src/api/workspaces.ts'
import { connectControl } from '../../src/client/client.ts'
import { socketPathOf } from '../../src/host/location.ts'
import { Guest, sh, shFails } from './guest.ts'
import { childrenOf, mountFor, nexusctl, noMount, plainFor, type TestMount } from './harness.ts'

const skip = noMount ?? false
const STANDBY_MS_MAX = 20_000
const timeout = 300_000

/** A tree that has a directory of the usual name, as a tree, as a git repository and as an archive. */
function makeTrees(directory: string): void {
  sh(
    `mkdir -p tree/.snapshots/deep tree/src; echo own > tree/.snapshots/deep/f; echo code > tree/src/c
    cp -a tree repo; cd repo; git init -q; git add -A
    git -c user.name=n -c user.email=e commit -qm all; cd ..
    tar -cf tree.tar -C tree .`,
    directory,
  )
}

/** Runs nexusctl, which must fail: its exit status and its line. */
function fails(mount: TestMount, ...words: string[]): [status: number | null, line: string] {
  const { status, stderr } = spawnSync(process.execPath, [nexusctl, '--data', mount.data, ...words], { encoding: 'utf8' })
  return [status, stderr]
}

/** Resolves when the process that took over answers on the socket too, which it opens a little later. */
async function answers(service: Service): Promise<void> {
  for (let waited = 0; ; waited += 50) {
    const isThere = await service.status().then(
      () => true,
      () => false,
    )
    if (isThere) return
    if (waited > STANDBY_MS_MAX) throw new Error('no process answers on the socket')
    await sleep(50)
  }
}

async function mountAndService(t: Test): Promise<{ mount: TestMount; service: Service }> {
  const mount = await mountFor(t)
  return { mount, service: connectControl({ socketPath: socketPathOf(mount.data) }) }
}

t.test('trees that have a .snapshots go in', { skip, timeout }, async (t) => {
  const { mount, service } = await mountAndService(t)
  const trees = plainFor(t)
  makeTrees(trees)
  const ways: Record<string, string> = {
    git: `git clone -q ${trees}/repo . && git status --porcelain`,
    rsync: `rsync -a ${trees}/tree/ .`,
    tar: `tar -xf ${trees}/tree.tar`,
    cp: `cp -a ${trees}/tree/. .`,
    mkdir: 'mkdir -p .snapshots/deep src && echo own > .snapshots/deep/f && echo code > src/c',
  }
  for (const [name, script] of Object.entries(ways)) {
    const [path, dir] = [`/workspace/${name}`, mount.at('workspace', name)]
    const made = mount.json<WorkspaceInfo>('workspace', 'create', path, '--snapshot-dir', '.history')
    t.match(made, { snapshot_dir: '.history', snapshot_dir_hidden: false })
    t.equal(sh(script, dir), '', `${name}: works, and says nothing`)
    await service.snapshotCreate(path, { name: 's' })
    t.equal(sh(`diff -r -x .git ${trees}/tree . && diff -r -x .git ${trees}/tree .history/s && ls .history`, dir), 's\n')
    t.equal(sh('ls -A | grep history || echo hidden', dir), 'hidden\n', 'a listing does not have it')
    t.match(shFails('mkdir .history', dir), /File exists/)
    t.match(shFails('touch .history/new', dir), /Read-only/)
    t.match(shFails('mv src .history', dir), /Read-only|exists/)
    sh('rm -r .snapshots', dir)
    await service.restore(path, 's', {})
    t.equal(sh(`diff -r -x .git ${trees}/tree . && echo same`, dir), 'same\n', 'restored, the own one too')
  }
  await service.workspaceCreate('/workspace/usual', {})
  const script = `cp -a ${trees}/tree/. .`
  t.ok(shFails(script, mount.at('workspace/usual')), 'in another the usual name is taken, as it was')
  await service.workspaceUpdate('/workspace/usual', { snapshotDir: '.history' })
  t.equal(sh(script, mount.at('workspace/usual')), '', 'until that is changed')
})

t.test('the name is changed under programs that know it', { skip, timeout }, async (t) => {
  const { mount, service } = await mountAndService(t)
  const [path, dir] = ['/workspace/a', mount.at('workspace/a')]
  fs.mkdirSync(dir)
  sh('echo 1 > f; mkdir taken', dir)
  await service.snapshotCreate(path, { name: 's' })
  const guest = new Guest(t, dir)
  // The kernel holds the one name, and knows that the other is not there.
  t.same(await guest.run('[os.listdir(".snapshots"), os.path.exists(".history"), open(".snapshots/s/f").read()]'), [
    ['s'],
    false,
    '1\n',
  ])
  await guest.run('d = os.open(".snapshots", os.O_RDONLY); f = open(".snapshots/s/f")')
  const lister = new Guest(t, dir)
  const listing = lister.run<number>('sum(os.path.exists(n) for _ in range(30000) for n in (".snapshots", ".history"))')
  t.match(await service.workspaceUpdate(path, { snapshotDir: '.history' }), { snapshot_dir: '.history' })
  t.same(
    await guest.run(
      '[os.path.exists(".snapshots"), os.listdir(".history"), open(".history/s/f").read(), os.listdir(d), f.read()]',
    ),
    [false, ['s'], '1\n', ['s'], '1\n'],
    'at the next system call; what is open goes on',
  )
  const found = await listing
  t.ok(found > 0 && found < 60_000, `a program that looks for both goes on: ${found}`)
  t.equal(await guest.run('os.mkdir(".snapshots")'), null, 'the name is free')
  t.match(fails(mount, 'workspace', 'update', path, '--snapshot-dir', '.snapshots'), [
    1,
    /^nexusctl: \/workspace\/a has a file or directory \.snapshots: give another name for its snapshots, or rename that first\n$/,
  ])
  t.match(fails(mount, 'workspace', 'update', path, '--snapshot-dir', 'taken'), [1, /has a file or directory taken/])
  for (const name of ['', '.', '..', 'a/b', 'n'.repeat(256), 'a\nb']) {
    t.match(
      fails(mount, 'workspace', 'update', path, '--snapshot-dir', name),
      [2, /^nexusctl: snapshotDir/],
      JSON.stringify(name),
    )
  }
  t.match(fails(mount, 'workspace', 'update', path), [2, /give --meta or --snapshot-dir/])
  t.match(await service.workspaceUpdate(path, { snapshotDir: '~ältere' }), { snapshot_dir: '~ältere' }, 'any UTF-8')
  t.same(await guest.run('[os.path.exists(".history"), os.listdir("~ältere"), os.listdir(".snapshots")]'), [false, ['s'], []])
  mount.ctl('workspace', 'update', path, '--meta', 'a=b')
  t.match(await service.workspaceShow(path), { snapshot_dir: '~ältere', metadata: { a: 'b' } }, 'stays')
  t.match(mount.ctl('workspace', 'show', path), /^seen under +~ältere$/m)
  await service.snapshotCreate(path, { name: 'with-own' })
  t.equal(await guest.run('os.rmdir(".snapshots")'), null)
  t.match(await service.workspaceUpdate(path, { snapshotDir: '.snapshots' }), { snapshot_dir: '.snapshots' }, 'and back')
  t.same((await guest.run<string[]>('os.listdir(".snapshots")')).sort(), ['s', 'with-own'])

  // A restore brings back an own directory of that name: it is seen, and its removal shows the snapshots again.
  await guest.run('os.stat(".snapshots")')
  await service.restore(path, 'with-own', {})
  t.same(await guest.run('os.listdir(".snapshots")'), [])
  t.match(await service.workspaceShow(path), { snapshot_dir: '.snapshots', snapshot_dir_hidden: true })
  t.match(mount.ctl('workspace', 'show', path), /hidden: it has a file or directory of that name/)
  t.equal(sh('echo x > .snapshots/f; mv .snapshots/f .; mv .snapshots aside; ls .snapshots | wc -l', dir), '3\n', 'renamed')
  t.match(shFails('mv aside .snapshots/', dir), /Read-only/)
  await service.restore(path, 'with-own', {})
  t.ok((await guest.run<string[]>('[os.rmdir(".snapshots"), os.listdir(".snapshots")][1]')).includes('s'), 'removed')
  t.match(await service.fsck(), { findings: [] })
})

t.test('forks, workspaces inside, another process and the next mount', { skip, timeout }, async (t) => {
  const { mount, service } = await mountAndService(t)
  const [path, dir] = ['/workspace/a', mount.at('workspace/a')]
  await service.workspaceCreate(path, { snapshotDir: '.history' })
  sh('echo 1 > f', dir)
  await service.workspaceCreate(`${path}/in`, { snapshotDir: '.inner' })
  await service.snapshotCreate(path, { name: 's' })
  await service.fork(path, '/workspace/live', {})
  await service.fork(path, '/workspace/old', { snapshot: 's' })
  for (const name of ['live', 'old']) {
    t.equal((await service.workspaceShow(`/workspace/${name}`)).snapshot_dir, '.history', name)
    t.equal((await service.workspaceShow(`/workspace/${name}/in`)).snapshot_dir, '.inner', `${name}/in`)
    t.equal(sh('ls .history in/.inner; mkdir .snapshots in/.snapshots', mount.at('workspace', name)), '.history:\n\nin/.inner:\n')
  }
  await service.workspaceUpdate(`${path}/in`, { snapshotDir: '.later' })
  await service.restore(path, 's', {})
  t.equal(
    sh('ls .history; cd in; ls .later | wc -l; mkdir .inner', dir).split('\n')[0],
    (await service.snapshotList(path))[0]?.name,
  )
  await service.workspaceRename(path, '/workspace/b')

  const names = (): string =>
    sh('test -d .history/s && test -d in/.later && ! test -e .snapshots && echo all', mount.at('workspace/b')).trim()
  t.equal(names(), 'all')
  const serving = childrenOf(mount.pid)[0] as number
  for (let waited = 0; childrenOf(mount.pid).length < 2 && waited < STANDBY_MS_MAX; waited += 50) await sleep(50)
  process.kill(serving, 'SIGKILL')
  // What the kernel does not know by itself waits until the next process serves.
  await fs.promises.stat(mount.at('no such name')).catch(() => undefined)
  await answers(service)
  t.equal(names(), 'all', 'another process serves')
  await service.workspaceUpdate('/workspace/b', { snapshotDir: '.newer' })
  t.equal(sh('ls .newer | head -1; ls -d .history 2>/dev/null || echo gone', mount.at('workspace/b')).includes('gone'), true)
  await service.workspaceUpdate('/workspace/b', { snapshotDir: '.history' })
  await mount.stop()
  await mount.start()
  t.equal(names(), 'all', 'mounted again')
  await mount.kill()
  await mount.start()
  t.equal(names(), 'all', 'and after a crash')
  t.equal((await service.workspaceShow('/workspace/old/in')).snapshot_dir, '.inner')
})
