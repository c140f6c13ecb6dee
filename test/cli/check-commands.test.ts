/** `fsck` and `scrub`: words, text and exit status. */
import t from 'tap'
import type { ScrubInfo } from '../../src/api/store.ts'
import { runFsck } from '../../src/cli/commands/fsck.ts'
import { parseRate, progressBar, runScrub } from '../../src/cli/commands/scrub.ts'
import { bad, finding, fsck, scrub } from '../service/fake-service.ts'
import { checkCommands } from './command-rows.ts'
import { inProcess, nexusctl, served } from './running.ts'

process.env['TZ'] = 'UTC'

const clean = { ...fsck, clean: true, findings: [], total: 0 }

checkCommands([
  {
    name: 'fsck of what is clean',
    run: runFsck,
    service: { fsck: async () => clean },
    want: ['clean: 1234 inodes, 99 chunks, 2 workspaces, 1 snapshot in 40.0 ms'],
  },
  {
    name: 'fsck that finds something',
    run: runFsck,
    service: {
      fsck: async () => ({ ...fsck, findings: [finding, { ...finding, path: null, live: false, snapshots: [] }], total: 7 }),
    },
    want: [
      `error links: /workspace/acme/evil\\x1b[2J (live, ${finding.snapshots[0]}): ${finding.text}`,
      `error links: /workspace/acme: ${finding.text}`,
      '… and 5 more',
      '7 findings: 1234 inodes, 99 chunks, 2 workspaces, 1 snapshot in 40.0 ms',
    ],
  },
  {
    name: 'scrub that is done',
    run: (service, output) => runScrub(service, {}, output),
    want: [
      'chunk cdcdcdcdcdcdcdcd in segment 3 at byte 4096 is not what was stored',
      `  /workspace/acme/evil\\x1b[2J (live, ${bad.files[0]?.snapshots[0]})`,
      'done at 2026-01-31 12:37:00, 3.0 MiB of 3.0 MiB read, 1 bad',
    ],
  },
  {
    name: 'scrub that runs',
    run: (service, output) => runScrub(service, { status: true }, output),
    service: { scrubStatus: async () => ({ ...scrub, state: 'running', done_bytes: 0, bad: [] }) },
    want: ['running since 2026-01-31 12:36:00, 0 B of 3.0 MiB read, nothing bad found so far'],
  },
  {
    name: 'scrub that was stopped',
    run: (service, output) => runScrub(service, { stop: true }, output),
    service: {
      scrubStop: async () => ({ ...scrub, state: 'stopped', total_bytes: 0, bad: [{ ...bad, segment: null, files: [] }] }),
    },
    want: ['chunk cdcdcdcdcdcdcdcd is nowhere', 'stopped, 1 bad so far: "nexusctl scrub" goes on'],
  },
])

t.test('scrub waits and is watched', async (t) => {
  const answers: ScrubInfo[] = [1, 2].map((done_bytes) => ({ ...scrub, state: 'running', done_bytes, total_bytes: 4 }))
  const seen: string[] = []
  const { dataDir, service } = await served(t, {
    scrub: async () => answers[0] as ScrubInfo,
    scrubStatus: async () => answers.splice(1, 1)[0] ?? { ...scrub, bad: [] },
  })
  const output = { result: (value: unknown) => seen.push((value as ScrubInfo).state) }
  t.equal(await runScrub(service, { wait: true }, output, (info) => seen.push(progressBar(info))), true)
  t.strictSame(seen, [
    '\r[########......................] 25 %, 1 B of 4 B ',
    '\r[###############...............] 50 %, 2 B of 4 B ',
    'done',
  ])
  t.match(await inProcess(dataDir, ['scrub', '--status']), { exit: 0, stdout: /^done/, stderr: '' })
})

t.test('words of scrub', async (t) => {
  const { dataDir, service } = await served(t)
  for (const [words, call] of [
    ['scrub', ['scrub', {}]],
    ['scrub --rate 50MiB', ['scrub', { rate: 50 * 1024 * 1024 }]],
    ['scrub --rate 7 --wait', ['scrub', { rate: 7 }]],
    ['scrub --status', ['scrubStatus']],
    ['scrub --stop', ['scrubStop']],
  ] as const) {
    service.called.length = 0
    const { exit, stdout, stderr } = await inProcess(dataDir, [...words.split(' '), '--json'])
    // Something bad is known.
    t.strictSame({ exit, stderr, answer: JSON.parse(stdout) }, { exit: 1, stderr: '', answer: scrub }, words)
    t.strictSame(service.called, [call])
  }
  for (const words of ['scrub --rate', 'scrub --rate x', 'scrub --rate 0', 'scrub --stop --status', 'scrub --wait --stop'])
    t.match(await inProcess(dataDir, words.split(' ')), { exit: 2, stdout: '' }, words)
  t.equal(parseRate('2GiB'), 2 ** 31)
})

t.test('fsck answers with its exit status, without an error line', async (t) => {
  const { dataDir, service } = await served(t)
  t.match(await inProcess(dataDir, ['fsck']), { exit: 1, stdout: /^error links/, stderr: '' })
  t.strictSame(await nexusctl(dataDir, 'fsck', '--json'), { exit: 1, stdout: `${JSON.stringify(fsck)}\n`, stderr: '' })
  t.strictSame(service.called, [['fsck'], ['fsck']])
  const { dataDir: sound } = await served(t, { fsck: async () => clean })
  t.match(await inProcess(sound, ['fsck']), { exit: 0, stdout: /^clean/, stderr: '' })
})
