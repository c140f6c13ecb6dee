/**
 * Who may, as tables in `cases/access-*.json`: every row states what `check`, `whoCan` and `whatCan` say together. A file
 * sets up a store of its own with the calls that a person would make; paths are as in the mount.
 */
import fs from 'node:fs'
import t from 'tap'
import { builtinModel } from '../../src/acl/model.ts'
import { engineFor, type TestEngine } from '../snapshots/support.ts'

interface Cases {
  /** subject to uid */
  identities: Record<string, number>
  /** replacements in the text of the built-in model, all of each */
  model?: [string, string][]
  /** `command argument…` */
  setup: string[]
  rows: Row[]
}

type Row = PathRow | SubjectRow

/** Exactly `who` may; each of `not` is asked for as well. */
interface PathRow {
  path: string
  permission: string
  who: string[]
  not: string[]
}

/** A subject reaches exactly this: the paths with grants that give it something. */
interface SubjectRow {
  subject: string
  reach: { path: string; permissions: string[] }[]
}

/** The compiled test lies in dist, the data beside its source. */
const directory = new URL('../../../test/acl/cases/', import.meta.url)
const files = fs.readdirSync(directory).filter((name) => /^access-.*\.json$/.test(name))
let rowCount = 0

for (const name of files) {
  const cases = JSON.parse(fs.readFileSync(new URL(name, directory), 'utf8')) as Cases
  rowCount += cases.rows.length
  t.test(name, async (t) => {
    const engine = await engineFor(t)
    for (const [subject, uid] of Object.entries(cases.identities)) await engine.service.identityAdd(subject, uid)
    if (cases.model !== undefined) {
      const text = cases.model.reduce((model, [from, to]) => model.replaceAll(from, to), builtinModel().text)
      await engine.service.modelApply(text)
    }
    for (const line of cases.setup) await setUp(engine, line)
    const subjects = new Set(cases.rows.flatMap((row) => ('subject' in row ? [row.subject] : [...row.who, ...row.not])))
    for (const row of cases.rows) await ('subject' in row ? checkReach(t, engine, row) : checkPath(t, engine, row, subjects))
  })
}
t.test('the tables are there', async (t) => t.ok(rowCount >= 40, `${rowCount} rows`))

async function setUp(engine: TestEngine, line: string): Promise<void> {
  const [command, a = '', b = '', c = '', d] = line.split(' ')
  const { service } = engine
  if (command === 'workspace') await service.workspaceCreate(a, b === '' ? {} : { owner: b })
  else if (command === 'tenant') await service.tenantOnboard(a, { admin: b, directories: c === '' ? [] : c.split(',') })
  else if (command === 'dir') engine.mkdir(a)
  else if (command === 'file') engine.write(a, 'text')
  else if (command === 'group') await service.groupAdd(a, b)
  else if (command === 'ungroup') await service.groupRemove(a, b)
  else if (command === 'grant') await service.grant(a, b, c, d === undefined ? {} : { expires: d })
  else if (command === 'revoke') await service.revoke(a, b, c)
  else if (command === 'rename') rename(engine, a, b)
  else if (command === 'link') link(engine, a, b)
  else if (command === 'unlink') engine.unlink(a)
  else if (command === 'rmdir') engine.engine.fs.rmdir(root, engine.stat(parentOf(a)).node, nameOf(a))
  else if (command === 'delete') await service.workspaceDelete(a)
  else if (command === 'snapshot') await service.snapshotCreate(a, { name: b })
  else if (command === 'restore') await service.restore(a, b, {})
  else if (command === 'fork') await service.fork(a, b, { withGrants: c === 'grants', ...(d === undefined ? {} : { owner: d }) })
  else if (command === 'forget-uid') await service.identityRemove(a, {})
  else throw new Error(`no such line of a setup: ${line}`)
}

const root = { uid: 0, gid: 0, pid: 1 }

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/')) || '/'
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

function rename(engine: TestEngine, from: string, to: string): void {
  const [fromNode, toNode] = [engine.stat(parentOf(from)).node, engine.stat(parentOf(to)).node]
  engine.engine.fs.rename(root, fromNode, nameOf(from), toNode, nameOf(to), 0)
}

function link(engine: TestEngine, from: string, to: string): void {
  engine.engine.fs.link(root, engine.stat(from).node, engine.stat(parentOf(to)).node, nameOf(to))
}

async function checkPath(t: Tap, { service }: TestEngine, row: PathRow, subjects: ReadonlySet<string>): Promise<void> {
  const { path, permission } = row
  const title = `${permission} ${path}`
  t.same((await service.whoCan(permission, path)).subjects, [...row.who].sort(), `who can ${title}`)
  for (const subject of [...row.who, ...row.not]) {
    const expected = row.who.includes(subject)
    t.equal((await service.check(subject, permission, path)).allowed, expected, `${subject} ${title}: ${expected}`)
    t.equal((await service.explain(subject, permission, path)).allowed, expected, `explained: ${subject} ${title}`)
  }
  // Nobody is forgotten: whom the row does not name, and no tuple or identity either, still has an answer by `check`.
  for (const subject of subjects) {
    const { allowed } = await service.check(subject, permission, path)
    if (!row.who.includes(subject) && !row.not.includes(subject)) t.equal(allowed, false, `${subject} ${title}: unnamed`)
  }
}

async function checkReach(t: Tap, { service }: TestEngine, { subject, reach }: SubjectRow): Promise<void> {
  t.same(await service.whatCan(subject), reach, `what ${subject} can`)
  for (const { path, permissions } of reach) {
    for (const permission of ['read', 'write', 'share', 'snapshot', 'restore']) {
      const { allowed } = await service.check(subject, permission, path)
      t.equal(allowed, permissions.includes(permission), `${subject} ${permission} ${path}`)
    }
  }
}
type Tap = Pick<typeof t, 'equal' | 'same'>
