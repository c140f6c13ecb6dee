/** What a model means for a tree, whoever it is that something is given to. */
import t from 'tap'
import { builtinModel, parseModel } from '../../src/acl/model.ts'
import { hides, inheritsAll } from '../../src/acl/shape.ts'
import { caller, engineFor } from '../snapshots/support.ts'

const { text } = builtinModel()
/** The built-in model with one more relation that lets its subjects read. */
const withRobot = (definition: string): string =>
  text.replaceAll('define read: viewer', `define robot: ${definition}\n    define read: viewer or robot`)
const [others, workspaces] = text.split('type workspace\n') as [string, string]

t.test('whether what lies in a directory has its rights, and nothing is hidden in it', async (t) => {
  const rows: [string, string, { inherits: boolean; hides: boolean }][] = [
    ['the built-in model', text, { inherits: true, hides: false }],
    ['inherited', withRobot('[agent] or robot from parent'), { inherits: true, hides: false }],
    ['given to users alone', withRobot('[user]'), { inherits: false, hides: true }],
    ['given to agents alone', withRobot('[agent]'), { inherits: false, hides: true }],
    ['given to all agents alone', withRobot('[agent:*]'), { inherits: false, hides: true }],
    ['given to groups alone', withRobot('[group#member]'), { inherits: false, hides: true }],
    ['subtracted', text.replaceAll('define read: viewer', 'define read: viewer but not owner'), { inherits: false, hides: true }],
    [
      'given by way of something else',
      text.replaceAll('define read: viewer', 'define team: [group]\n    define read: viewer or member from team'),
      { inherits: false, hides: true },
    ],
    [
      'workspaces inside have no part in it',
      `${others}type workspace\n${workspaces.replace(/ or (owner|editor|viewer) from parent/g, '')}`,
      { inherits: true, hides: true },
    ],
  ]
  for (const [what, source, want] of rows) {
    const model = parseModel(source)
    t.strictSame({ inherits: inheritsAll(model, ['read', 'write']), hides: hides(model) }, want, what)
  }
})

t.test('an agent that was given what is not inherited does not get inside', async (t) => {
  const made = await engineFor(t)
  made.mkdir('/workspace/a/dir')
  const agent = { ...caller, uid: 2007 }
  await made.service.identityAdd('agent:robot', agent.uid)
  await made.service.modelApply(withRobot('[agent]'))
  await made.service.grant('agent:robot', 'robot', '/workspace/a', {})
  t.ok(made.engine.fs.getattr(agent, made.stat('/workspace/a').node))
  t.throws(() => made.engine.fs.getattr(agent, made.stat('/workspace/a/dir').node), { code: 'EACCES' })
})
