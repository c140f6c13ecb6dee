import t from 'tap'
import { align, count, elapsed, localTime, pairs, printable, size, table, uptime } from '../../src/cli/format.ts'

process.env['TZ'] = 'UTC'

const suites: [string, (value: never) => string, [unknown, string][]][] = [
  [
    'size',
    size,
    [
      [0, '0 B'],
      [1023, '1023 B'],
      [1024, '1.0 KiB'],
      [1536, '1.5 KiB'],
      [1024 * 1024 - 1, '1.0 MiB'],
      [1024 ** 3, '1.0 GiB'],
      [2 ** 63, '8.0 EiB'],
      [2 ** 75, '32768.0 EiB'],
    ],
  ],
  [
    'elapsed',
    elapsed,
    [
      [0.04, '0.0 ms'],
      [12, '12.0 ms'],
      [3250, '3.25 s'],
    ],
  ],
  [
    'uptime',
    uptime,
    [
      [0.9, '0 s'],
      [59, '59 s'],
      [185, '3 min 5 s'],
      [7200, '2 h 0 min'],
      [86400 * 9 + 3600 * 4, '9 d 4 h'],
    ],
  ],
  [
    'localTime',
    localTime,
    [
      ['2026-01-02T03:04:05.999Z', '2026-01-02 03:04:05'],
      ['never', 'never'],
    ],
  ],
  [
    'printable',
    printable,
    [
      ['plain ünï', 'plain ünï'],
      ['a\u001b[2J\n', 'a\\x1b[2J\\x0a'],
      ['\u009b', '\\x9b'],
      ['gpj.\u202eexe', 'gpj.\\u202eexe'],
      ['\u2028', '\\u2028'],
    ],
  ],
  [
    'pairs',
    pairs,
    [
      [{}, ''],
      [{ a: 1, b: '2' }, 'a=1, b=2'],
    ],
  ],
]

for (const [name, run, rows] of suites) {
  t.test(name, async (t) => {
    for (const [value, want] of rows) t.equal(run(value as never), want, want)
  })
}

t.test('count', async (t) => {
  t.strictSame(
    [0, 1, 2].map((n) => count(n, 'file')),
    ['0 files', '1 file', '2 files'],
  )
})

t.test('columns line up, numbers to the right, nothing trails', async (t) => {
  const text = table(
    [{ title: 'NAME' }, { title: 'N', align: 'right' }, { title: 'X' }],
    [
      ['a', '5', ''],
      ['longer\n', '1000', 'x'],
    ],
  )
  t.equal(text, ['NAME           N  X', 'a              5', 'longer\\x0a  1000  x'].join('\n'))
  t.equal(align([]), '')
})
