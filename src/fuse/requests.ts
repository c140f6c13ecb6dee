/**
 * Every opcode of the kernel and what is done with it. To add one: its number in protocol.ts, a
 * function in the *-ops.ts where it belongs, a row in test/fuse/protocol.test.ts. An opcode without
 * an entry does not compile; one that the kernel has and we don't know is answered ENOSYS.
 */
import { attributeOperations } from './attribute-ops.ts'
import { connectionOperations } from './connection-ops.ts'
import { dataOperations } from './data-ops.ts'
import { directoryOperations } from './directory-ops.ts'
import { OperationMeter, type Stalls } from './meter.ts'
import { nameOperations } from './name-ops.ts'
import type { Operation } from './operation.ts'
import { Opcode, type OpcodeName } from './protocol.ts'

export const operations = {
  ...connectionOperations,
  ...nameOperations,
  ...attributeOperations,
  ...dataOperations,
  ...directoryOperations,
} satisfies Record<OpcodeName, Operation>

/** An entry as the dispatcher finds it: with its name, and what is measured of it. */
export interface Dispatched extends Operation {
  readonly name: OpcodeName
  readonly meter: OperationMeter
}

/** By opcode; a plain array, because it is looked into once a request. */
export function operationTable(stalls: Stalls): readonly (Dispatched | undefined)[] {
  const table = new Array<Dispatched | undefined>(Opcode.CUSE_INIT + 1).fill(undefined)
  for (const name of Object.keys(Opcode) as OpcodeName[]) {
    table[Opcode[name]] = { name, meter: new OperationMeter(name, stalls), ...operations[name] }
  }
  return table
}
