/** `fsck`: words, text and exit status. */
import t from 'tap'
import { runFsck } from '../../src/cli/commands/fsck.ts'
import { finding, fsck } from '../control/fake-service.ts'
import { checkCommands } from './command-rows.ts'
import { inProcess, nexusctl, served } from './running.ts'

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
])

t.test('fsck answers with its exit status, without an error line', async (t) => {
  const { dataDir, service } = await served(t)
  t.match(await inProcess(dataDir, ['fsck']), { exit: 1, stdout: /^error links/, stderr: '' })
  t.strictSame(await nexusctl(dataDir, 'fsck', '--json'), { exit: 1, stdout: `${JSON.stringify(fsck)}\n`, stderr: '' })
  t.strictSame(service.called, [['fsck'], ['fsck']])
  const { dataDir: sound } = await served(t, { fsck: async () => clean })
  t.match(await inProcess(sound, ['fsck']), { exit: 0, stdout: /^clean/, stderr: '' })
})
