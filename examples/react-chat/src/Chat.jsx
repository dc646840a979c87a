import { useChat } from '@ai-sdk/react';
import { DefaultChatTransport } from 'ai';
import { useEffect, useState } from 'react';
import { resumption } from './resume.js';

const api = `${HEADRACE_URL}/api/chat`;
const resuming = resumption();
const transport = new DefaultChatTransport({
  api,
  body: { model: MODEL },
  fetch: resuming.fetch,
  // This page keeps messages under Headrace's ids, so that a replay replaces the message, also after its end.
  prepareReconnectToStreamRequest: ({ id }) => ({ api: `${api}/${encodeURIComponent(id)}/stream?ended=true` }),
});

export function Chat({ chatId, kept }) {
  const [text, setText] = useState('');
  const { messages, sendMessage, status, error, stop, resumeStream } = useChat({
    id: chatId,
    messages: kept,
    resume: kept.length > 0,
    transport,
    onError: (error) => resuming.onError(error, resumeStream),
  });
  useEffect(() => resuming.cancel, [chatId]);
  useEffect(() => { localStorage.messages = JSON.stringify(messages); }, [messages]);

  const busy = status === 'submitted' || status === 'streaming';
  const end = async () => {
    await fetch(`${api}/${encodeURIComponent(chatId)}/stop`, { method: 'POST' }); // `stop` alone only stops reading
    await stop();
  };
  const send = async (event) => {
    event.preventDefault();
    if (!text.trim() || busy) return;
    setText('');
    await stop(); // a resume that still waits for the server
    await sendMessage({ text });
  };

  return (
    <>
      {messages.map((message) => (
        <article key={message.id} className={message.role}>
          {message.parts.map((part, at) => part.type === 'text' && <span key={at}>{part.text}</span>)}
        </article>
      ))}
      {error && status === 'error' && <p role="alert">{error.message}</p>}
      <form onSubmit={send}>
        <input value={text} onChange={(event) => setText(event.target.value)} placeholder="Ask something" autoFocus />
        {busy ? <button type="button" onClick={end}>Stop</button> : <button>Send</button>}
      </form>
    </>
  );
}
