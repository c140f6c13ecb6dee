/** Lines that repeat themselves, and a log that grows. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { rotateLog } from '../../src/daemon/logfile.ts'
import { type Logger, limited } from '../../src/logger.ts'
import { scratchDir } from '../service/fake-service.ts'

function memory() {
  const lines: string[] = []
  const say = (level: string) => (fields: object, message: string) =>
    void lines.push(`${level} ${message} ${JSON.stringify(fields)}`)
  const logger: Logger = { error: say('error'), warn: say('warn'), info: say('info'), debug: say('debug') }
  return { lines, logger }
}

t.test('the same is said at once, and then once a while with a count', async (t) => {
  const { lines, logger } = memory()
  const quiet = limited(logger, 50)
  for (let i = 0; i < 1000; i++) quiet.error({ op: 'READ', i }, 'failed')
  t.strictSame(lines, ['error failed {"op":"READ","i":0}'])
  quiet.error({ op: 'WRITE' }, 'failed')
  quiet.warn({ op: 'READ' }, 'failed')
  quiet.error({ op: 'READ' }, 'failed otherwise')
  t.equal(lines.length, 4, 'what differs in level, operation or words is something else')
  await sleep(80)
  t.strictSame(lines.slice(4), ['error failed {"op":"READ","i":999,"left_out":998}'])
  quiet.error({ op: 'READ', i: 1000 }, 'failed')
  t.equal(lines.length, 5, 'that was a line too')
  await sleep(120)
  t.strictSame(lines.slice(5), ['error failed {"op":"READ","i":1000}'], 'nothing was left out')
  await sleep(80)
  quiet.error({ op: 'READ', i: 1001 }, 'failed')
  t.equal(lines.at(-1), 'error failed {"op":"READ","i":1001}', 'after a while at once again')
})

t.test('no more is remembered than there is room for', async (t) => {
  const { lines, logger } = memory()
  const quiet = limited(logger, 60_000)
  for (let i = 0; i < 5000; i++) quiet.info({}, `message ${i}`)
  t.equal(lines.length, 5000)
})

const longLine = (text: string): string => `${text.padEnd(100, text)}\n`

t.test('a log is put aside when it is too large, three of them', async (t) => {
  const file = path.join(scratchDir(t), 'nexusd.log')
  const read = (name: string) => (fs.existsSync(name) ? fs.readFileSync(name, 'utf8') : undefined)
  const writer = fs.openSync(file, 'a')
  for (const text of ['first', 'second', 'third', 'fourth', 'fifth']) {
    fs.writeSync(writer, longLine(text))
    rotateLog(file, 100)
    t.equal(read(file), '', `${text} is put aside`)
    rotateLog(file, 100)
  }
  fs.writeSync(writer, 'last\n')
  rotateLog(file, 100)
  fs.closeSync(writer)
  t.equal(read(file), 'last\n', 'who has it open writes on at its beginning')
  t.strictSame(
    [1, 2, 3, 4].map((number) => read(`${file}.${number}`)),
    [...['fifth', 'fourth', 'third'].map(longLine), undefined],
  )
  t.strictSame(fs.readdirSync(path.dirname(file)).length, 4)
})

t.test('lines of a process that writes all the time are whole, and most are kept', async (t) => {
  const file = path.join(scratchDir(t), 'nexusd.log')
  const log = fs.openSync(file, 'a')
  const lines = 20_000
  const script = `const fs = require('fs'); for (let i = 0; i < ${lines}; i++) fs.writeSync(2, 'line ' + String(i).padStart(8, '0') + '\\n')`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'ignore', log] })
  fs.closeSync(log)
  const ended = once(child, 'exit')
  const kept: string[] = []
  while (child.exitCode === null) {
    const before = fs.existsSync(`${file}.1`) ? fs.statSync(`${file}.1`).ino : 0
    rotateLog(file, 16 * 1024)
    const old = fs.existsSync(`${file}.1`) ? fs.statSync(`${file}.1`).ino : 0
    if (old !== before) kept.push(...fs.readFileSync(`${file}.1`, 'utf8').split('\n').filter(Boolean))
    await sleep(1)
  }
  await ended
  kept.push(...fs.readFileSync(file, 'utf8').split('\n').filter(Boolean))
  t.ok(kept.every((line) => /^line \d{8}$/.test(line)))
  t.equal(new Set(kept).size, kept.length, 'none comes twice')
  // What comes between the last look and the emptying is lost, and this machine may do something else in between.
  t.ok(kept.length > lines / 2, `${kept.length} of ${lines}`)
  t.ok(fs.existsSync(`${file}.3`), 'it was put aside several times')
})
