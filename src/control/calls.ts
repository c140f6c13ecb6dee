/**
 * The calls of the control API, one row each: how the arguments of a `Service` method travel as
 * the fields of one JSON object. Server and client both read this table, and its type demands a
 * row with fitting parameters for every method: a new call is a line in `Service` and one here.
 */
import type { Service } from './service.ts'
import {
  type Check,
  checkBoolean,
  checkDirectoryName,
  checkLimit,
  checkMetadata,
  checkObject,
  checkPath,
  checkQuota,
  checkRate,
  checkSnapshotName,
  checkSnapshotReference,
  nullable,
  optional,
  shown,
  usage,
} from './validate.ts'
import {
  checkDirectories,
  checkGroup,
  checkModelText,
  checkPermission,
  checkPerson,
  checkRelation,
  checkSubject,
  checkTenant,
  checkTime,
  checkUid,
} from './validate-access.ts'

export type CallName = keyof Service
type Fields = Record<string, unknown>

/** One parameter of a method: a field of the body, or an options object spread over several. */
interface Parameter<T> {
  readonly names: readonly string[]
  toFields(value: T): Fields
  fromFields(fields: Fields): T
}

type ParametersOf<Arguments extends unknown[]> = { readonly [I in keyof Arguments]: Parameter<Arguments[I]> }
type Checks<T> = { readonly [K in keyof Required<T>]: Check<T[K]> }
type Options<K extends CallName> = Parameters<Service[K]> extends [...unknown[], infer Last] ? Last : never

function field<T>(name: string, check: Check<T>): Parameter<T> {
  return {
    names: [name],
    toFields: (value) => ({ [name]: value }),
    fromFields: (fields) => check(fields[name], name),
  }
}

/** The last parameter of a method, an object whose absent fields stay absent. */
function options<K extends CallName>(checks: Checks<Options<K>>): Parameter<Options<K>> {
  const rows = Object.entries<Check<unknown>>(checks)
  return {
    names: Object.keys(checks),
    toFields: (value) => ({ ...(value as object) }),
    fromFields: (fields) => {
      const values = rows.map(([name, check]) => [name, check(fields[name], name)] as const)
      return Object.fromEntries(values.filter(([, value]) => value !== undefined)) as Options<K>
    },
  }
}

const path = field('path', checkPath)
const newPath = field('newPath', checkPath)
const snapshot = field('snapshot', checkSnapshotReference)
const metadata = optional(checkMetadata)
const person = field('subject', checkPerson)
const subject = field('subject', checkSubject)
const relation = field('relation', checkRelation)
const permission = field('permission', checkPermission)
const group = field('group', checkGroup)
const member = field('member', checkSubject)
const owner = optional(checkSubject)
const quotaBytes = optional(checkQuota)
const quotaInodes = optional(checkQuota)
const snapshotDir = optional(checkDirectoryName)
/** undefined: as it is; null: none */
const limit = optional(nullable(checkQuota))

const calls: { readonly [K in CallName]: ParametersOf<Parameters<Service[K]>> } = {
  status: [],
  workspaceCreate: [path, options<'workspaceCreate'>({ metadata, owner, quotaBytes, quotaInodes, snapshotDir })],
  workspaceList: [],
  workspaceShow: [path],
  workspaceDelete: [path],
  workspaceRename: [path, newPath],
  workspaceUpdate: [path, options<'workspaceUpdate'>({ metadata, snapshotDir })],
  snapshotCreate: [path, options<'snapshotCreate'>({ name: optional(checkSnapshotName), metadata })],
  snapshotList: [path],
  snapshotShow: [path, snapshot],
  snapshotDelete: [path, snapshot],
  snapshotDiff: [
    path,
    field('from', checkSnapshotReference),
    field('to', nullable(checkSnapshotReference)),
    field('limit', checkLimit),
  ],
  restore: [
    path,
    snapshot,
    options<'restore'>({
      dryRun: optional(checkBoolean),
      limit: optional(checkLimit),
      force: optional(checkBoolean),
      stop: optional(checkBoolean),
    }),
  ],
  fork: [
    path,
    newPath,
    options<'fork'>({ snapshot: optional(checkSnapshotReference), withGrants: optional(checkBoolean), owner }),
  ],
  identityAdd: [person, field('uid', checkUid)],
  identityList: [],
  identityRemove: [person, options<'identityRemove'>({ uid: optional(checkUid) })],
  grant: [subject, relation, path, options<'grant'>({ expires: optional(checkTime) })],
  revoke: [subject, relation, path],
  grants: [path],
  check: [subject, permission, path],
  explain: [subject, permission, path],
  whoCan: [permission, path],
  whatCan: [subject],
  groupAdd: [group, member],
  groupRemove: [group, member],
  groupList: [],
  modelShow: [],
  modelApply: [field('text', checkModelText)],
  tenantOnboard: [
    field('id', checkTenant),
    options<'tenantOnboard'>({
      admin: checkSubject,
      metadata,
      directories: optional(checkDirectories),
      quotaBytes,
      quotaInodes,
    }),
  ],
  quotaSet: [path, options<'quotaSet'>({ bytes: limit, inodes: limit })],
  quotaShow: [path],
  quotaList: [],
  checkpoint: [],
  collect: [],
  collectStatus: [],
  diskUsage: [field('path', nullable(checkPath))],
  shutdown: [],
  fsck: [],
  scrub: [options<'scrub'>({ rate: optional(checkRate) })],
  scrubStatus: [],
  scrubStop: [],
  metrics: [],
}

export const callNames = Object.keys(calls) as CallName[]

/** Whether a word from outside names a call; inherited names such as `constructor` do not. */
export function isCallName(name: string): name is CallName {
  return Object.hasOwn(calls, name)
}

/** The row of a call without its argument types, which TypeScript cannot follow from a variable name. */
function rowOf(name: CallName): readonly Parameter<unknown>[] {
  return calls[name] as readonly Parameter<unknown>[]
}

/** The fields that the body of a call may have. */
export function fieldsOf(name: CallName): readonly string[] {
  return rowOf(name).flatMap((parameter) => parameter.names)
}

/** The body that carries these arguments; `args` must be those of the method. */
export function encodeCall(name: CallName, args: readonly unknown[]): Fields {
  return Object.assign({}, ...rowOf(name).map((parameter, i) => parameter.toFields(args[i])))
}

/** The arguments that a body carries, each checked. Throws NEXUS_USAGE. */
function decodeCall(name: CallName, body: unknown): unknown[] {
  const fields = checkObject(body, 'the body')
  const known = fieldsOf(name)
  const stranger = Object.keys(fields).find((key) => !known.includes(key))
  if (stranger !== undefined) {
    throw usage(`${name} has no field ${shown(stranger)}: it takes ${known.join(', ') || 'none'}`)
  }
  return rowOf(name).map((parameter) => parameter.fromFields(fields))
}

/** Runs a call whose body came from outside. */
export async function invokeCall(service: Service, name: CallName, body: unknown): Promise<unknown> {
  const args = decodeCall(name, body)
  const method = service[name] as (...args: unknown[]) => Promise<unknown>
  return await method.apply(service, args)
}
