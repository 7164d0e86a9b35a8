/**
 * A failure, to whoever asked: a page for a person who navigates, a problem for every program.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { isEdgeError } from '../../manifests/errors.ts'
import { problemOf, sendProblem } from './problem.ts'

/**
 * @param more further fields, flat.
 * @returns the status.
 */
export function refuse(
  req: IncomingMessage,
  res: ServerResponse,
  error: unknown,
  more: readonly string[],
): number {
  const answer = problemOf(error, req.url)
  if (res.headersSent || !navigates(req)) {
    sendProblem(res, answer, more)
    return answer.status
  }
  // The pages are loaded with the first person who needs one.
  import('./portal/pages.ts')
    .then(async ({ PORTAL_FIELDS, problemPage }) => {
      const detail = isEdgeError(error) ? error.message : 'something went wrong inside the node'
      const page = Buffer.from(String(await problemPage(answer.status, detail)))
      if (res.headersSent || res.destroyed) return
      res.writeHead(answer.status, [
        ...Object.entries({ ...PORTAL_FIELDS, 'Cache-Control': 'no-store' }).flat(),
        'Content-Type',
        'text/html; charset=UTF-8',
        'Content-Length',
        String(page.length),
        ...more,
      ])
      res.end(page)
    })
    .catch(() => sendProblem(res, answer, more))
  return answer.status
}

/** Browsers name HTML when somebody follows a link; not for images, scripts, media or `fetch`. */
function navigates({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.accept?.includes('text/html') === true
}
