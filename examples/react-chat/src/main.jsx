import { createRoot } from 'react-dom/client';
import { Chat } from './Chat.jsx';

// What an application would have from its own storage: the chat's id, and its messages under the ids they were given.
const chatId = (localStorage.chatId ??= crypto.randomUUID());
const messages = JSON.parse(localStorage.messages ?? '[]');

createRoot(document.getElementById('chat')).render(<Chat chatId={chatId} kept={messages} />);
