/** The source as a whole: which folder may import which, names that stand for one thing, files that something needs. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import t from 'tap'
import { packageRoot } from '../src/host/version.ts'

/**
 * What each folder may import, beside files that lie in no folder. It is the map of the source in README.md, line by line:
 * whoever changes one changes the other.
 */
const LAYERS: Record<string, readonly string[]> = {
  cli: ['api', 'client', 'host', 'server', 'daemon', 'engine', 'fuse', 'workspaces'],
  daemon: ['api', 'host', 'server', 'service', 'engine', 'fuse', 'workspaces', 'acl', 'vfs', 'volume'],
  service: ['api', 'host', 'server', 'engine', 'snapshots', 'workspaces', 'check', 'vfs', 'volume', 'fuse'],
  engine: ['api', 'check', 'workspaces', 'acl', 'vfs', 'volume', 'cas', 'journal', 'fuse'],
  snapshots: ['api', 'workspaces', 'acl', 'vfs', 'volume', 'cas'],
  workspaces: ['api', 'acl', 'vfs', 'volume', 'cas'],
  check: ['api', 'workspaces', 'acl', 'volume', 'tree', 'cas'],
  server: ['api', 'host'],
  client: ['api', 'host'],
  host: ['api'],
  api: [],
  fuse: ['vfs'],
  acl: ['vfs', 'volume'],
  vfs: ['volume', 'cas'],
  volume: ['tree', 'cas', 'journal'],
  tree: ['cas'],
  cas: ['journal'],
  journal: [],
}

/** Of these folders only one file may be known there: an interface. */
const NARROW: Record<string, string> = { 'fuse vfs': 'src/vfs/filesystem.ts' }

/** Exported twice, with one meaning: each side of a border has its own. */
const TWICE = ['S_IFREG', 'readU64', 'writeU64']

/** Programs that are started, not imported. */
const STARTED = /(-child|sealworker|src\/cli\/(start|pages))\.ts$/

interface Import {
  from: string
  to: string
  isType: boolean
}

function filesIn(folder: string): string[] {
  return readdirSync(join(packageRoot(), folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
}

const texts = new Map(filesIn('src').map((file) => [file, readFileSync(join(packageRoot(), file), 'utf8')]))

function importsOf(file: string, text: string): Import[] {
  const found = text.matchAll(/^(?:import|export) (type )?(?:[^;'"]*? from )?'(\.[^']+)'/gm)
  return [...found].map(([, type, path = '']) => ({
    from: file,
    to: normalize(join(dirname(file), path)),
    isType: type !== undefined,
  }))
}

const imports = [...texts].flatMap(([file, text]) => importsOf(file, text))

/** The folder below `src` that a file lies in; empty for those in none. */
function folderOf(file: string): string {
  const [first = '', ...rest] = relative('src', file).split('/')
  return rest.length > 0 ? first : ''
}

t.test('a folder imports what it may, and no more is allowed than it needs', async (t) => {
  const folders = new Set([...texts.keys()].map(folderOf).filter(Boolean))
  t.same([...folders].sort(), Object.keys(LAYERS).sort(), 'each folder has a line')
  const used = new Set<string>()
  for (const { from, to } of imports) {
    const [above, below] = [folderOf(from), folderOf(to)]
    if (above === below || below === '') continue
    if (!LAYERS[above]?.includes(below)) t.fail(`${from} imports ${to}`)
    const only = NARROW[`${above} ${below}`]
    if (only !== undefined && to !== only) t.fail(`${from} imports ${to}, and may know only ${only} there`)
    used.add(`${above} ${below}`)
  }
  const allowed = Object.entries(LAYERS).flatMap(([above, belows]) => belows.map((below) => `${above} ${below}`))
  t.same(
    allowed.filter((pair) => !used.has(pair)),
    [],
    'allowed and not used',
  )
})

t.test('the map in README.md is that of the imports', async (t) => {
  const readme = readFileSync(join(packageRoot(), 'README.md'), 'utf8')
  const lines = [...readme.matchAll(/^ {4}([a-z]+) +→ ?([a-z, ]*)$/gm)]
  const map = Object.fromEntries(lines.map(([, folder, belows = '']) => [folder, belows.split(', ').filter(Boolean)]))
  t.same(map, LAYERS)
})

t.test('no file needs itself to be loaded', async (t) => {
  const next = new Map<string, string[]>()
  for (const { from, to, isType } of imports) if (!isType) next.set(from, [...(next.get(from) ?? []), to])
  const done = new Set<string>()
  const visit = (file: string, way: readonly string[]): void => {
    if (way.includes(file)) t.fail([...way.slice(way.indexOf(file)), file].join(' → '))
    if (way.includes(file) || done.has(file)) return
    for (const other of next.get(file) ?? []) visit(other, [...way, file])
    done.add(file)
  }
  for (const file of texts.keys()) visit(file, [])
  t.equal(done.size, texts.size)
})

t.test('an exported type, class or constant has a name of its own', async (t) => {
  const places = new Map<string, string[]>()
  for (const [file, text] of texts) {
    for (const [, name = ''] of text.matchAll(/^export (?:declare )?(?:const|class|interface|type|function) ([A-Za-z]\w*)/gm)) {
      if (/^[A-Z]/.test(name)) places.set(name, [...(places.get(name) ?? []), file])
    }
  }
  const twice = [...places].filter(([name, files]) => files.length > 1 && !TWICE.includes(name))
  t.same(twice, [])
})

t.test('every file is imported by something', async (t) => {
  const bins = filesIn('bin').flatMap((file) => importsOf(file, readFileSync(join(packageRoot(), file), 'utf8')))
  const known = new Set([...imports, ...bins].map(({ to }) => to))
  // The build writes from these.
  known.add('src/api/pages.ts')
  t.same(
    [...texts.keys()].filter((file) => !known.has(file) && !STARTED.test(file)),
    [],
  )
})
