import type { KernelNotifier } from '../fuse/notify.ts'
import type { Session } from '../fuse/session.ts'
import type { Engine } from './engine.ts'
export interface ServiceOptions { engine: Engine; kernel: KernelNotifier; session: Session; mountpoint: string; data: string; singleUser: boolean; stop: () => void }
export class DaemonService {
  #o: ServiceOptions
  constructor(o: ServiceOptions) { this.#o = o }
  async shutdown() { setTimeout(() => this.#o.stop(), 10); return { pid: process.pid } }
}
