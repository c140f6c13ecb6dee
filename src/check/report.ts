/** The result of a check as the control API has it. */
import type { FsckInfo } from '../api/store.ts'
import type { Checked } from './fsck.ts'

export function infoOfReport(checked: Checked, elapsedMs: number, repaired = 0): FsckInfo {
  const { findings, total, states, workspaces, snapshots, inodes, chunks } = checked
  return { clean: total === 0, findings, total, repaired, states, workspaces, snapshots, inodes, chunks, elapsed_ms: elapsedMs }
}
