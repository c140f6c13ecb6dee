/**
 * Random calls on an engine beside a model that knows no shortcut: a plain tree, a list of tuples and a fixpoint. After
 * each step every uid is compared on every inode: what commands say, what the filesystem does, and what the kernel would
 * do with the ACL that it is shown. Differences are collected by kind, so that one does not hide another.
 */
import fc from 'fast-check'
import t from 'tap'
import { decodeAcl, Tag } from '../../src/vfs/acl.ts'
import { inoOfNode, nodeOf, volumeOf } from '../../src/vfs/place.ts'
import { maskOf } from '../../src/volume/attr.ts'
import { engineFor, type TestEngine } from '../snapshots/support.ts'

interface Node {
  parent: number
  name: string
  isDir: boolean
}
/** Inodes by node id; a file has the directory of the name that it was given last, or none when that name is gone. */
type Tree = Map<number, Node>
interface Tuple {
  subject: string
  relation: string
  /** node id, or `group:NAME` */
  object: number | string
}
interface Step {
  kind: (typeof kinds)[number]
  a: number
  b: number
  c: number
}

const root = { uid: 0, gid: 0, pid: 1 }
const kinds = [
  ...([
    'mkdir',
    'mkdir',
    'create',
    'create',
    'rename',
    'unlink',
    'link',
    'grant',
    'grant',
    'grant',
    'revoke',
    'chmod',
    'chown',
  ] as const),
  ...(['group+', 'group-', 'identity', 'snapshot', 'restore', 'fork'] as const),
]
const uids = [1001, 1002, 1003, 2001]
const names = ['user:ann', 'user:bob', 'agent:bot']
const receivers = ['user:ann', 'user:bob', 'user:uid-1003', 'agent:bot', 'user:*', 'agent:*', 'group:g#member', 'group:h#member']
const relations = ['viewer', 'editor', 'owner']
const stepArb = fc.record({
  kind: fc.constantFrom(...kinds),
  ...{ a: fc.nat(999), b: fc.nat(999), c: fc.nat(999) },
})

class Model {
  readonly tree: Tree = new Map()
  readonly ids = new Map<number, string>()
  tuples: Tuple[] = []

  subjectOf(uid: number): string {
    return this.ids.get(uid) ?? `user:uid-${uid}`
  }

  /** Everything a subject is: itself, all of its type, and sets that it is in. */
  sets(subject: string): Set<string> {
    const sets = new Set([subject, `${subject.slice(0, subject.indexOf(':'))}:*`])
    for (let before = -1; before !== sets.size; ) {
      before = sets.size
      for (const { subject: member, object } of this.tuples)
        if (typeof object === 'string' && sets.has(member)) sets.add(`${object}#member`)
    }
    return sets
  }

  level(subject: string, node: number): number {
    const sets = this.sets(subject)
    let level = 0
    for (let at: number | undefined = node; at !== undefined; at = this.tree.get(at)?.parent) {
      for (const { subject: to, relation, object } of this.tuples)
        if (object === at && sets.has(to)) level = Math.max(level, relations.indexOf(relation) + 1)
    }
    return level
  }

  bits(subject: string, node: number): number {
    const level = this.level(subject, node)
    if (level > 0) return level > 1 ? 7 : 5
    const leads = [...this.tree.keys()].some((other) => this.isIn(other, node) && this.level(subject, other) > 0)
    return leads ? 1 : 0
  }

  isIn(node: number, directory: number): boolean {
    for (let at = this.tree.get(node)?.parent; at !== undefined; at = this.tree.get(at)?.parent) if (at === directory) return true
    return false
  }
}

class Run {
  readonly model = new Model()
  readonly names = new Map<string, number>()
  readonly #engine: TestEngine
  readonly #gate: number
  #snapshot: { tree: Map<number, Node>; names: Map<string, number> } | undefined
  #count = 0

  constructor(engine: TestEngine) {
    this.#engine = engine
    this.#gate = engine.stat('/workspace/a').node
    this.model.tree.set(this.#gate, { parent: undefined as unknown as number, name: 'a', isDir: true })
  }

  async step({ kind, a, b, c }: Step): Promise<void> {
    const { model, names: entries } = this
    const { fs } = this.#engine.engine
    const { service } = this.#engine
    const pick = <T>(all: readonly T[], n: number): T => all[n % all.length] as T
    const inside = [...model.tree].filter(([node]) => volumeOf(node) === volumeOf(this.#gate))
    const directory = pick(
      inside.filter(([, one]) => one.isDir),
      a,
    )[0]
    const node = pick(inside, b)[0]
    const path = this.pathOf(node)
    const fresh = `n${this.#count++}`
    const all = [...entries]
    if (kind === 'mkdir' || kind === 'create') {
      const stat = kind === 'mkdir' ? fs.mkdir(root, directory, fresh, 0o755, 0) : fs.create(root, directory, fresh, 0o644, 0, 0)
      model.tree.set(stat.node, { parent: directory, name: fresh, isDir: kind === 'mkdir' })
      entries.set(`${directory}/${fresh}`, stat.node)
    } else if (kind === 'rename' && all.length > 0) {
      const [key, moved] = pick(all, b)
      if (moved === directory || model.isIn(directory, moved)) return
      const [parent, name] = key.split('/') as [string, string]
      fs.rename(root, Number(parent), name, directory, fresh, 0)
      entries.delete(key)
      entries.set(`${directory}/${fresh}`, moved)
      Object.assign(model.tree.get(moved) as Node, { parent: directory, name: fresh })
    } else if (kind === 'link') {
      if (model.tree.get(node)?.isDir !== false) return
      fs.link(root, node, directory, fresh)
      entries.set(`${directory}/${fresh}`, node)
      Object.assign(model.tree.get(node) as Node, { parent: directory, name: fresh })
    } else if (kind === 'unlink' && all.length > 0) {
      const [key, gone] = pick(all, b)
      const [parent, name] = key.split('/') as [string, string]
      const one = model.tree.get(gone) as Node
      if (one.isDir && all.some(([other]) => other.startsWith(`${gone}/`))) return
      if (one.isDir) fs.rmdir(root, Number(parent), name)
      else fs.unlink(root, Number(parent), name)
      entries.delete(key)
      if (![...entries.values()].includes(gone)) {
        model.tree.delete(gone)
        fs.forget(gone, 1_000_000)
      } else if (one.parent === Number(parent) && one.name === name) Object.assign(one, { parent: this.#gate, name: '' })
    } else if (kind === 'grant' && path !== undefined) {
      const tuple = { subject: pick(receivers, a), relation: pick(relations, c), object: node }
      await service.grant(tuple.subject, tuple.relation, path, {})
      if (!model.tuples.some((one) => same(one, tuple))) model.tuples.push(tuple)
    } else if (kind === 'revoke') {
      const given = model.tuples.filter(({ object }) => typeof object === 'number' && this.pathOf(object) !== undefined)
      if (given.length === 0) return
      const tuple = pick(given, a)
      await service.revoke(tuple.subject, tuple.relation, this.pathOf(tuple.object as number) as string)
      model.tuples = model.tuples.filter((one) => one !== tuple)
    } else if (kind === 'chmod') fs.setattr(root, node, { mode: pick([0o777, 0o755, 0o750, 0o700, 0o640, 0o604, 0o444], a) })
    else if (kind === 'chown') fs.setattr(root, node, { uid: pick([0, ...uids], a) })
    else if (kind === 'group+') {
      const [group, member] = [
        pick(['g', 'h'], a),
        pick(['user:ann', 'agent:bot', 'user:uid-1003', 'group:g#member', 'group:h#member'], b),
      ]
      await service.groupAdd(group, member)
      const tuple = { subject: member, relation: 'member', object: `group:${group}` }
      if (!model.tuples.some((one) => same(one, tuple))) model.tuples.push(tuple)
    } else if (kind === 'group-') {
      const members = model.tuples.filter(({ object }) => typeof object === 'string')
      if (members.length === 0) return
      const tuple = pick(members, a)
      await service.groupRemove((tuple.object as string).slice(6), tuple.subject)
      model.tuples = model.tuples.filter((one) => one !== tuple)
    } else if (kind === 'identity') {
      const uid = pick([1001, 1002, 2001], a)
      const known = model.ids.get(uid)
      if (known === undefined) {
        await service.identityAdd(names[uid === 1001 ? 0 : uid === 1002 ? 1 : 2] as string, uid)
        model.ids.set(uid, names[uid === 1001 ? 0 : uid === 1002 ? 1 : 2] as string)
      } else {
        await service.identityRemove(known, {})
        model.ids.delete(uid)
      }
    } else if (kind === 'snapshot' && this.#snapshot === undefined) {
      await service.snapshotCreate('/workspace/a', { name: 's' })
      this.#snapshot = { tree: new Map(inside.map(([id, one]) => [id, { ...one }])), names: new Map(entries) }
    } else if (kind === 'restore' && this.#snapshot !== undefined) {
      await service.restore('/workspace/a', 's', {})
      for (const [id] of inside) if (!this.#snapshot.tree.has(id)) model.tree.delete(id)
      for (const [id, one] of this.#snapshot.tree) model.tree.set(id, { ...one })
      entries.clear()
      for (const [key, id] of this.#snapshot.names) entries.set(key, id)
    } else if (kind === 'fork' && c < 200) {
      const withGrants = a % 2 === 0
      await service.fork('/workspace/a', `/workspace/${fresh}`, { withGrants })
      const number = volumeOf(this.#engine.stat(`/workspace/${fresh}`).node)
      const there = (id: number): number => nodeOf(number, inoOfNode(id))
      for (const [id, one] of inside) {
        model.tree.set(there(id), { ...one, parent: one.parent === undefined ? one.parent : there(one.parent) })
      }
      if (!withGrants) return
      for (const { subject, relation, object } of [...model.tuples]) {
        const isHere = typeof object === 'number' && volumeOf(object) === volumeOf(this.#gate)
        if (isHere) model.tuples.push({ subject, relation, object: there(object) })
      }
    }
  }

  /** Of what lies in /workspace/a and has a name that is known. */
  pathOf(node: number): string | undefined {
    if (node === this.#gate) return '/workspace/a'
    const one = this.model.tree.get(node)
    if (one === undefined || one.name === '' || volumeOf(node) !== volumeOf(this.#gate)) return undefined
    const above = this.pathOf(one.parent)
    return above === undefined ? undefined : `${above}/${one.name}`
  }

  /** What the kernel should let a uid do, which is in no group of the file. */
  kernelShould(node: number, uid: number): number {
    const place = this.#engine.engine.fs.core.place(node)
    const { mode, uid: owner } = place.attr
    const of = (one: number): number => this.model.bits(this.model.subjectOf(one), node)
    const anybody = this.model.bits('user:*', node)
    if (uid === owner) return (mode >> 6) & of(uid)
    // Strangers get the others' bits, where there are none for the group, only if everyone may have them.
    if ((mode & 0o070) === 0)
      return uids.reduce((bits, one) => bits & of(one), mode & 7 & anybody & (owner === 0 ? 7 : of(owner)))
    const named = this.#engine.engine.fs.core.guard.uidsOn(place)
    const isNamed = named?.includes(uid) ?? true
    if (!isNamed && of(uid) !== anybody) throw new Error(`${uid} has other rights than anybody, and would not be named`)
    return of(uid) & (isNamed ? maskOf(mode) : mode & 7)
  }

  async compare(note: (kind: string, detail: string) => void): Promise<void> {
    const { fs } = this.#engine.engine
    const { service } = this.#engine
    const same = (kind: string, detail: string, found: unknown, wanted: unknown): void => {
      if (found !== wanted) note(kind, `${detail}: ${found}, by the model ${wanted}`)
    }
    for (const [node, one] of this.model.tree) {
      const path = this.pathOf(node)
      const shown = fs.getattr(root, node)
      const acl = decodeAcl(fs.getxattr(root, node, 'system.posix_acl_access'))
      for (const uid of uids) {
        const subject = this.model.subjectOf(uid)
        const caller = { uid, gid: 77, pid: 1 }
        const [bits, level] = [this.model.bits(subject, node), this.model.level(subject, node)]
        const what = `${subject} on ${path ?? node}`
        same(
          'getattr',
          what,
          passes(() => fs.getattr(caller, node)),
          bits !== 0,
        )
        if (one.isDir)
          same(
            'readdir',
            what,
            passes(() => fs.readdir(caller, node, 0, true, () => true)),
            (bits & 4) !== 0,
          )
        else
          same(
            'read',
            what,
            passes(() => fs.read(caller, node, 0, 1, Buffer.alloc(1), 0)),
            (bits & 4) !== 0,
          )
        if (one.isDir)
          same(
            'lookup in',
            what,
            passes(() => fs.lookup(caller, node, 'none')),
            (bits & 1) !== 0,
          )
        else
          same(
            'write',
            what,
            passes(() => fs.write(caller, node, 0, Buffer.alloc(1200), 80, 0, false)),
            (bits & 2) !== 0,
          )
        same(
          'setattr',
          what,
          passes(() => fs.setattr(caller, node, {})),
          (bits & 2) !== 0,
        )
        same('kernel', what, kernelBits(acl, shown, uid), this.kernelShould(node, uid))
        if (path === undefined) continue
        same('check read', what, (await service.check(subject, 'read', path)).allowed, level > 0)
        same('check write', what, (await service.check(subject, 'write', path)).allowed, level > 1)
      }
      if (path === undefined) continue
      const candidates = new Set([...this.model.ids.values(), ...this.model.tuples.map(({ subject }) => subject)])
      const may = [...candidates].filter((each) => !each.includes('#') && this.model.level(each, node) > 0).sort()
      same('who can', path, (await service.whoCan('read', path)).subjects.join(), may.join())
    }
    for (const subject of names) {
      const sets = this.model.sets(subject)
      const given = this.model.tuples.filter((one) => typeof one.object === 'number' && sets.has(one.subject))
      const alive = new Set(given.map(({ object }) => object as number).filter((node) => this.model.tree.has(node)))
      same('what can', subject, (await service.whatCan(subject)).length, alive.size)
    }
  }
}

/** What the kernel allows (acl_permission_check, posix_acl_permission); the caller is in no group of the file. */
function kernelBits(acl: ReturnType<typeof decodeAcl>, { mode, uid: owner }: { mode: number; uid: number }, uid: number): number {
  if (uid === owner) return (mode >> 6) & 7
  if ((mode & 0o070) === 0) return mode & 7
  const mask = acl.find(({ tag }) => tag === Tag.mask)?.perm ?? 7
  const named = acl.find(({ tag, id }) => tag === Tag.user && id === uid)
  return named === undefined ? (acl.find(({ tag }) => tag === Tag.other)?.perm ?? 0) : named.perm & mask
}

function same(one: Tuple, other: Tuple): boolean {
  return one.subject === other.subject && one.relation === other.relation && one.object === other.object
}

/** Whether a call is let through; only EACCES says that it is not. */
function passes(call: () => unknown): boolean {
  try {
    call()
    return true
  } catch (error) {
    if ((error as { code?: string }).code !== 'EACCES') throw error
    return false
  }
}

t.test('commands, filesystem and kernel agree with the model', async (t) => {
  const differences = new Map<string, string>()
  const deadline = Date.now() + 12_000
  let steps = 0
  for (const sequence of fc.sample(fc.array(stepArb, { minLength: 25, maxLength: 25 }), { seed: 20, numRuns: 60 })) {
    if (Date.now() > deadline && steps > 100) break
    const run = new Run(await engineFor(t))
    let hasDiffered = false
    for (const step of sequence) {
      await run.step(step)
      await run.compare((kind, detail) => {
        hasDiffered = true
        const key = `${step.kind}: ${kind}`
        if (!differences.has(key)) differences.set(key, detail)
      })
      steps++
      // What follows from a difference says nothing new.
      if (hasDiffered) break
    }
  }
  t.comment(`${steps} steps`)
  t.ok(steps > 100, 'steps were taken')
  t.same(Object.fromEntries(differences), {})
})
