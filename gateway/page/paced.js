// Drawing what grows: at most once a frame and, where that is dear, at most a fifth of the time.

export class Paced {
  constructor(draw, onDrawn) {
    this.draw = draw;
    this.onDrawn = onDrawn;
    this.frame = 0;
    this.notBefore = 0;
  }

  /** Draws soon. */
  ask() {
    this.frame ||= requestAnimationFrame((now) => {
      this.frame = 0;
      if (now < this.notBefore) return this.ask();
      this.draw();
      const took = performance.now() - now;
      this.notBefore = took > 4 ? now + 4 * took : 0;
      this.onDrawn();
    });
  }

  /** Nothing of what was asked for is drawn any more. */
  cancel() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.notBefore = 0;
  }
}
