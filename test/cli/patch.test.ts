/** The lines of a patch: which differ, and how names are written. */
import { spawnSync } from 'node:child_process'
import fc from 'fast-check'
import t from 'tap'
import { editsBetween, type LineEdit, linesOf } from '../../src/cli/patch/lines.ts'
import { bytesOf } from '../../src/cli/patch/side.ts'
import { quoted } from '../../src/cli/patch/text.ts'
import { shownName } from '../../src/workspaces/paths.ts'

/** On an idle machine the worst of these takes 0.3 s. */
const BUSY_MS_MAX = 20_000

function applied(before: readonly string[], after: readonly string[], edits: readonly LineEdit[]): string[] {
  const made: string[] = []
  let at = 0
  for (const { oldStart, oldEnd, newStart, newEnd } of edits) {
    made.push(...before.slice(at, oldStart), ...after.slice(newStart, newEnd))
    at = oldEnd
  }
  return [...made, ...before.slice(at)]
}

t.test('edits make the one text the other', async (t) => {
  const lines = fc.array(fc.constantFrom('a\n', 'b\n', 'c\n', 'd'), { maxLength: 40 })
  fc.assert(
    fc.property(lines, lines, (before, after) => {
      const edits = editsBetween(before, after)
      t.strictSame(applied(before, after, edits), after)
      for (const [i, { oldStart, newStart }] of edits.entries()) {
        const last = edits[i - 1]
        if (last !== undefined && last.oldEnd >= oldStart) t.fail('edits are in order, with a line between them')
        if (last !== undefined && last.newEnd >= newStart) t.fail('on both sides')
      }
    }),
  )
  t.strictSame(editsBetween(['a', 'b', 'c'], ['a', 'x', 'c']), [{ oldStart: 1, oldEnd: 2, newStart: 1, newEnd: 2 }])
  t.strictSame(editsBetween([], []), [])
})

t.test('10,000 lines, however many of them differ', async (t) => {
  const before = Array.from({ length: 10_000 }, (_, i) => `${(i * 7919) % 5000}\n`)
  const rows: [name: string, after: string[]][] = [
    ['a few', before.toSpliced(5000, 3, 'x\n')],
    ['every tenth', before.map((line, i) => (i % 10 === 0 ? `x${i}\n` : line))],
    ['every second', before.map((line, i) => (i % 2 === 0 ? `x${i}\n` : line))],
    ['all', before.map((line) => `x${line}`)],
    ['turned round', before.toReversed()],
  ]
  for (const [name, after] of rows) {
    const start = performance.now()
    const edits = editsBetween(before, after)
    const took = performance.now() - start
    t.ok(took < BUSY_MS_MAX, `${name}: ${Math.round(took)} ms, ${edits.length} edits`)
    t.ok(applied(before, after, edits).join('') === after.join(''), name)
  }
})

t.test('lines have their newlines', async (t) => {
  t.strictSame(linesOf(''), [])
  t.strictSame(linesOf('a\n\nb'), ['a\n', '\n', 'b'])
  t.strictSame(linesOf('a\r\n'), ['a\r\n'])
})

t.test('names', async (t) => {
  const text = (name: string): string => Buffer.from(name).toString('latin1')
  for (const [name, want] of [
    ['plain name', 'plain name'],
    ['ü', '"\\303\\274"'],
    ['a"b\\c', '"a\\"b\\\\c"'],
    ['\t\n\u0001\u007f', '"\\t\\n\\001\\177"'],
  ] as const) {
    t.equal(quoted(text(name)), want)
  }
  const bytes = fc
    .uint8Array({ minLength: 1, maxLength: 12 })
    .map((one) => Buffer.from(one.map((byte) => (byte === 47 ? 92 : byte || 120))))
  fc.assert(fc.property(bytes, (name) => bytesOf(shownName(name.toString('latin1'))) === name.toString('latin1')))
  // Git itself, of the names that can be given to it in words.
  const cases = ['ä\tö', 'q"', 'back\\slash', 'plain', '\u0007']
  for (const name of cases) {
    const words = ['-c', 'core.quotePath=true', 'diff', '--no-index', '--name-only', '--', '/dev/null', name]
    const { stdout } = spawnSync('git', words, { cwd: t.testdir({ [name]: 'x\n' }), encoding: 'utf8' })
    t.equal(stdout, `${quoted(text(name))}\n`)
  }
})
