/**
 * npm run build: dependencies, the native addon and the TypeScript, each only where it is out of date.
 * Works without a network when node_modules is there.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { die, filesBelow, isExecutable, missingPackages, modifiedMs, ROOT, run, runQuietly, tool } from './lib.mjs'

const COMPILER = { cc: 'build-essential', 'c++': 'build-essential', make: 'build-essential', python3: 'python3' }
const ADDON = join(ROOT, 'build', 'Release', 'nexus_fuse.node')

function checkNode() {
  const { engines } = readJson('package.json')
  const wanted = engines.node.replace('>=', '').split('.').map(Number)
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > wanted[0] || (major === wanted[0] && minor >= wanted[1])) return
  die(`nexus needs Node ${engines.node}, this is ${process.version}: see https://nodejs.org/en/download`)
}

function readJson(path) {
  return JSON.parse(readFileSync(join(ROOT, path), 'utf8'))
}

/** By content, not by time: a git checkout makes package-lock.json newer without changing it. */
function dependenciesAreCurrent() {
  if (!existsSync(join(ROOT, 'node_modules', '.package-lock.json'))) return false
  const installed = readJson('node_modules/.package-lock.json').packages
  const wanted = Object.entries(readJson('package-lock.json').packages)
  return wanted.every(([path, { optional, version }]) => path === '' || optional || installed[path]?.version === version)
}

function addonIsCurrent() {
  const sources = [join(ROOT, 'binding.gyp'), ...filesBelow(join(ROOT, 'src', 'fuse', 'native'))]
  return modifiedMs(ADDON) > Math.max(...sources.map(modifiedMs))
}

/** Headers that came with this Node, so that node-gyp need not download them. */
function headerArgs() {
  const prefix = dirname(dirname(process.execPath))
  return existsSync(join(prefix, 'include', 'node', 'node_api.h')) ? [`--nodedir=${prefix}`] : []
}

function needCompiler() {
  const missing = missingPackages(COMPILER)
  if (missing.length > 0) die(`the native addon needs a C compiler: apt-get install ${missing.join(' ')}`)
}

/** Without scripts: npm would build our addon by itself, and what it says without a compiler is no help. */
function installDependencies() {
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'])
}

function buildAddon() {
  runQuietly(tool('node-gyp'), ['configure', 'build', ...headerArgs()])
}

function compile() {
  run(tool('tsc'), ['-p', '.', '--incremental', '--tsBuildInfoFile', join(ROOT, 'dist', '.tsbuildinfo')])
  for (const file of filesBelow(join(ROOT, 'dist', 'bin'))) {
    if (file.endsWith('.js') && !isExecutable(file)) chmodSync(file, 0o755)
  }
}

/** The access model is parsed now, so that no start has to. */
async function parseModel() {
  const model = join(ROOT, 'src', 'acl', 'builtin.fga')
  const compiled = join(ROOT, 'dist', 'src', 'acl', 'model.js')
  const parsed = join(ROOT, 'dist', 'src', 'acl', 'builtin.json')
  if (modifiedMs(parsed) > Math.max(modifiedMs(model), modifiedMs(compiled))) return
  const { parsedBuiltin } = await import(pathToFileURL(compiled).href)
  const { url, content } = parsedBuiltin()
  writeFileSync(url, content)
}

/** The man pages come from the same tree of commands as the help. */
async function writeManPages() {
  const compiled = join(ROOT, 'dist', 'src', 'cli', 'pages.js')
  const newest = Math.max(...filesBelow(join(ROOT, 'dist', 'src', 'cli')).map(modifiedMs), modifiedMs(join(ROOT, 'package.json')))
  if (modifiedMs(join(ROOT, 'dist', 'man', 'nexusctl.1')) > newest) return
  const { pages } = await import(pathToFileURL(compiled).href)
  mkdirSync(join(ROOT, 'dist', 'man'), { recursive: true })
  for (const { file, content } of pages()) writeFileSync(join(ROOT, 'dist', 'man', file), content)
}

/** What programs in other languages go by. */
async function writeOpenApi() {
  const compiled = join(ROOT, 'dist', 'src', 'api')
  const target = join(ROOT, 'dist', 'openapi.json')
  const newest = Math.max(...filesBelow(compiled).map(modifiedMs), modifiedMs(join(ROOT, 'package.json')))
  if (modifiedMs(target) > newest) return
  const { openApiText } = await import(pathToFileURL(join(compiled, 'pages.js')).href)
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  writeFileSync(target, openApiText(version))
}

checkNode()
if (!addonIsCurrent()) needCompiler()
if (!dependenciesAreCurrent()) installDependencies()
if (!addonIsCurrent()) buildAddon()
compile()
await parseModel()
await writeManPages()
await writeOpenApi()
