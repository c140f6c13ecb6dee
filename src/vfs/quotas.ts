/** What the filesystem asks about quotas; `src/workspaces/quotas.ts` answers. */
import type { StatFs } from './filesystem.ts'

export interface Quotas {
  /**
   * Lets something be added to a workspace, or not. Root is asked as everybody is.
   * @param bytes allocated to files more than before; what is not more is let through
   * @throws EDQUOT when it would be more than the workspace, or one around it, may take
   */
  admit(volume: number, bytes: number, inodes: number): void
  /**
   * Lets a user make another workspace outside of tenants, or not.
   * @param subject whose limit counts; undefined: nobody's
   * @throws EDQUOT
   */
  admitWorkspace(subject: string | undefined): void
  /**
   * Lets a user add a plain name where no workspace is, or not.
   * @param has how many names the user has there
   * @throws EDQUOT when that is as many as a subject may have workspaces
   */
  admitPlain(subject: string | undefined, has: () => number): void
  /** Of a disk, what the quotas of a workspace and of those around it leave of it. */
  within(volume: number, disk: StatFs): StatFs
}
